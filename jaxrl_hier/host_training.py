"""Training in Gymnasium's environments.

`OnHost`, for one seed of a flat learner on one device, acts on the host. Updates, replay and relabelling are those of
the compiled loops: one call of `Algorithm.learn` per iteration. Only the rollout before it differs: a compiled policy
acts for all environments side by side, and `gymnasium.vector` steps them.

`Calling`, for everything else, runs the compiled program of any environment, which calls the host for each step.

Unlike in compiled environments, a resumed run starts new episodes, with its replay buffer as it was.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from gymnax.environments import spaces

from jaxrl_envs import boxes
from jaxrl_envs.goals import is_goal_env
from jaxrl_envs.resetting import select
from jaxrl_envs.tasks import single
from jaxrl_hier.building import acts_on_host
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import contract, replay
from jaxrl_hier.engine.chunk import (
    begun_with,
    evaluation_key,
    finite_per_seed,
    finite_update,
    over_seeds,
    seed_keys,
)
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.identity import Identity
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.rollout import first_episode
from jaxrl_hier.engine.rollout import rollout as compiled_rollout
from jaxrl_hier.engine.room import compiled, out_of_memory
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.train import Compiled, RunResult
from jaxrl_hier.engine.train import train as train_with
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    Average,
    NamedArray,
    Tasks,
    TrainState,
    Transition,
    World,
)
from jaxrl_hier.host import HostEnv, HostState, Ticket


def actor(env: HostEnv, agent: Agent, *, greedy: bool = False, uniform: bool = False) -> Callable[..., Any]:
    """A compiled policy: params, world [B] -> actions [B, ...], extras [B, ...], the world with its next carry and key.

    Args:
        uniform: draw actions uniformly instead, for the warm-up.
    """

    def one(params: Any, world: World) -> tuple[Any, Any, World]:
        key, key_start, key_act = jax.random.split(world.key, 3)
        carry = select(world.inp.first, agent.start(params, key_start), world.carry)
        action, carry, extras = agent.act(params, carry, world.inp, key_act, greedy)
        if uniform:
            action = boxes.sample(env.action_space(), key_start)
        return action, extras, replace(world, carry=carry, key=key)

    return jit(jax.vmap(one, (None, 0)))


def begin(env: HostEnv, envs: Any, world: World, seed: int) -> World:
    """Reset all environments: `world` [B] at the start of their episodes. `seed` is that of the first environment."""
    obs = _cast(envs.reset(seed=int(seed))[0], env.observation_space())
    count, space = envs.num_envs, env.action_space()
    zeros: Any = lambda dtype, *shape: np.zeros((count, *shape), dtype)
    inp = ActInput(obs, zeros(space.dtype, *space.shape), zeros(np.float32), ~zeros(bool))
    return replace(world, inp=inp, ep_return=zeros(np.float32), ep_length=zeros(np.int32))


def seed_of(key: jax.Array) -> int:
    """A seed for Gymnasium [31 bits]. Those of neighbouring runs, to each of which environments add their number, are
    far apart."""
    return int(jax.random.bits(key) >> 1)


def rollout(
    env: HostEnv, envs: Any, act: Callable[..., Any], params: Any, world: World, length: int
) -> tuple[World, Transition]:
    """`engine.rollout.rollout` on the host: the world after it and transitions [length, B, ...].

    Their facts are "success", what the environments report as "is_success" or "success", False where they report
    neither. An episode is truncated at the time limit even if only the environment's specification states one.
    """
    rows = []
    for _ in range(length):
        inp = world.inp
        action, extras, world = act(params, world)
        action = np.asarray(action)
        next_obs, reward, terminated, truncated, info = envs.step(action)
        next_obs = obs = _cast(next_obs, env.observation_space())
        reward = reward.astype(np.float32)
        total, steps = np.asarray(world.ep_return) + reward, np.asarray(world.ep_length) + np.int32(1)
        truncated = (truncated | (steps >= env.default_params.max_steps_in_episode)) & ~terminated
        facts = {"success": np.asarray(info.get("success", np.zeros(len(reward))), bool)}
        rows.append(Transition(inp.obs, action, reward, terminated, truncated, next_obs, inp.first, extras, facts))
        over: Any = terminated | truncated
        if over.any():
            obs = _cast(envs.reset(options={"reset_mask": over})[0], env.observation_space())
        action, reward, total, steps = (_emptied(over, x) for x in (action, reward, total, steps))
        world = replace(world, inp=ActInput(obs, action, reward, over), ep_return=total, ep_length=steps)
    return world, jax.tree.map(lambda *x: np.stack(x), *rows)


def _emptied(where: np.ndarray, x: np.ndarray) -> Any:
    """x [B, ...], zero in the environments that have been reset, `where` [B] bool."""
    return np.where(where.reshape(-1, *[1] * (x.ndim - 1)), np.zeros_like(x), x)


def _cast(obs: Any, space: Any) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _cast(obs[name], part) for name, part in space.spaces.items()}
    return np.array(obs, space.dtype)


AT_ONCE = 10  # environments side by side in an evaluation


def play(env: HostEnv, agent: Agent, params: Any, key: jax.Array, episodes: int) -> dict[str, NamedArray]:
    """Greedy episodes: "return" and "length" [episode]; with goals, and where success is told, also "success", in any
    step, and "success_at_end"."""
    count = min(AT_ONCE, episodes)
    key, key_seed = jax.random.split(key)
    envs, act = env.vector(count), actor(env, agent, greedy=True)
    world = begin_worlds(env.outline(), agent, single(env.default_params), params, key, count)
    found: dict[str, list[Any]] = {"return": [], "length": [], "success": [], "success_at_end": []}
    seed = seed_of(key_seed)
    try:
        for played in range(0, episodes, count):
            world = begin(env, envs, world, seed + played)
            _, seen = rollout(env, envs, act, params, world, env.default_params.max_steps_in_episode)
            mask = np.asarray(first_episode(seen)) > 0
            length, success = mask.sum(axis=0), seen.facts["success"]
            found["return"].append((seen.reward * mask).sum(axis=0))
            found["length"].append(length)
            found["success"].append((success & mask).any(axis=0))
            found["success_at_end"].append(success[length - 1, np.arange(count)])
    finally:
        envs.close()
    if not (is_goal_env(env) and env.tells_success):
        del found["success"], found["success_at_end"]
    values: Any = {name: np.concatenate(x)[:episodes].astype(np.float32) for name, x in found.items()}
    return {name: NamedArray(x, ("episode",)) for name, x in values.items()}


@with_own_numerics
def evaluate(agent: Agent, config: Any, env: HostEnv, state: TrainState) -> dict[str, NamedArray]:
    """`play` of a state with leading axis [1], the seed: axes ("seed", "episode"). The key follows from the state."""
    state = jax.tree.map(lambda x: x[0], state)
    measured = play(env, agent, state.params, evaluation_key(state), config.eval_episodes)
    return {name: NamedArray(m.values[None], ("seed", *m.axes)) for name, m in measured.items()}


class Calling:
    """Iterations of an algorithm whose compiled program calls the host for the steps of its environments.

    Args:
        trainer: compiles and runs the program.
        env: whose episodes it steps.
        starts: what the algorithm's `init` took for this run [seeds, ...].
    """

    def __init__(self, trainer: Compiled, env: HostEnv, starts: Any):
        self.trainer, self.env, self.starts = trainer, env, starts
        self.compile = trainer.compile

    def begin(self, state: TrainState, resumed: bool) -> TrainState:
        """Of a resumed run, worlds with tickets are new, since the host has no episodes for them, and so is what else
        holds some, such as steps that wait for their goals. Tasks that are kept for good are those of the beginning."""
        if resumed:
            fresh = jax.jit(jax.vmap(self.trainer.algorithm.init))(self.starts)
            fresh = jax.tree.map(partial(_with_later_keys, state.iteration), fresh, is_leaf=_is_world)
            place = lambda old, new: jax.device_put(new, old.sharding)
            again = {k: jax.tree.map(place, old, getattr(fresh, k)) for k, old in vars(state).items() if _tickets(old)}
            state = replace(state, **again)
        self._keep_episodes_of(state)
        return self.trainer.begin(state, resumed)

    def run(self, state: TrainState) -> tuple[TrainState, dict[str, Average], dict[str, Any]]:
        with self.env.episodes.passing_interrupts():
            state, metrics, bad = self.trainer.run(state)
        self._keep_episodes_of(state)
        return state, metrics, bad

    def evaluate(self, state: TrainState) -> dict[str, NamedArray]:
        with self.env.episodes.passing_interrupts():
            measured = self.trainer.evaluate(state)
        self._keep_episodes_of(state)
        return measured

    def _keep_episodes_of(self, state: TrainState) -> None:
        self.env.episodes.keep(part.data for ticket in _tickets(state) for part in ticket.number.addressable_shards)

    def close(self) -> None:
        self.env.episodes.close()


def _is_ticket(x: Any) -> bool:
    return isinstance(x, Ticket)


def _is_world(x: Any) -> bool:
    return isinstance(x, World)


def _tickets(tree: Any) -> list[Ticket]:
    return [x for x in jax.tree.leaves(tree, is_leaf=_is_ticket) if _is_ticket(x)]


def _with_later_keys(iteration: jax.Array, x: Any) -> Any:
    """A `World` [seeds, B, ...] of an initial state that draws other numbers from here on; all else as it is."""
    if not _is_world(x):
        return x
    folded = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)))
    return replace(x, key=folded(x.key, iteration))


def without_tickets(state: TrainState) -> TrainState:
    """The state as `OnHost` has it, where the host alone knows of the episodes."""
    return jax.tree.map(lambda x: HostState(x.time) if _is_ticket(x) else x, state, is_leaf=_is_ticket)


class OnHost:
    """Iterations of a learner whose environments are on the host, a `Trainer` of one seed.

    Args:
        skip: leave out updates that are not finite, see `engine.chunk.finite_update`.
    """

    def __init__(self, algorithm: Any, config: Any, env: HostEnv, *, skip: bool = False):
        self.algorithm, self.config, self.env, self.skip = algorithm, config, env, skip
        self.rollout_length = algorithm.env_steps // config.environments
        self.envs = env.vector(config.environments)
        self.act = actor(env, algorithm.agent)
        self.acting_seconds = self.learning_seconds = 0.0

    @out_of_memory("state")
    def begin(self, state: TrainState, resumed: bool) -> TrainState:
        """Start new episodes; unless `resumed`, fill the replay buffer by random actions, as `begin_replay` does."""
        params, world = _first((state.params, state.world))
        key = jax.random.fold_in(state.key[0], state.iteration[0])
        world = begin(self.env, self.envs, world, seed_of(key))
        warmup = getattr(self.config, "warmup_steps", 0)
        if warmup and not resumed:
            explore = actor(self.env, self.algorithm.agent, uniform=True)
            steps = warmup // self.config.environments
            world, transitions = rollout(self.env, self.envs, explore, params, world, steps)
            add = jit(lambda ring, steps: over_seeds(lambda r: replay.add(r, steps))(ring), donate_argnums=0)
            state = replace(state, memory=add(state.memory, transitions._replace(facts=())))
        return replace(state, world=_with_seed(world))

    def compile(self, state: TrainState, length: int) -> None:
        """Compile what follows a rollout; an iteration is that of any chunk, so this is needed once."""
        self.length = length
        if hasattr(self, "learn"):
            return
        algorithm, tasks = self.algorithm, single(self.env.default_params)
        play = lambda params, world: compiled_rollout(
            self.env.outline(), algorithm.agent, tasks, params, world, self.rollout_length
        )
        world, transitions = jax.eval_shape(play, *_first((state.params, state.world)))

        def one(world: World, transitions: Transition, state: TrainState) -> Any:
            after, metrics = algorithm.learn(state, world, transitions)
            return after, contract.averages(metrics)

        def learn(state: TrainState, world: World, transitions: Transition) -> Any:
            after, averages = over_seeds(partial(one, world, transitions))(state)
            return finite_update(state, after, averages) if self.skip else (after, averages)

        self.learn = compiled(jit(learn, donate_argnums=0), "iterations", state, world, transitions)

    @out_of_memory("evaluation")
    def evaluate(self, state: TrainState) -> dict[str, NamedArray]:
        return evaluate(self.algorithm.agent, self.config, self.env, state)

    @out_of_memory("iterations")
    def run(self, state: TrainState) -> tuple[TrainState, dict[str, Average], dict[str, Any]]:
        totals: dict[str, Average] = {}
        bad: dict[str, Any] = {}
        for i in range(self.length):
            begun = time.perf_counter()
            params, world = _first((state.params, state.world))
            world, transitions = rollout(self.env, self.envs, self.act, params, world, self.rollout_length)
            self.acting_seconds += time.perf_counter() - begun
            begun = time.perf_counter()
            state, metrics = self.learn(state, world, transitions._replace(facts=()))
            if is_goal_env(self.env) and self.env.tells_success:
                over = transitions.terminated | transitions.truncated
                successes = transitions.facts["success"] & over
                metrics |= {"success_at_end": Average(successes.sum()[None], over.sum()[None])}
            for name, metric in jax.device_get(metrics).items():
                one = jax.tree.map(lambda x: np.asarray(x, np.float64), metric)
                totals[name] = jax.tree.map(np.add, totals[name], one) if name in totals else one
                position = np.where(np.isfinite(one.total), self.length, i)
                bad[name] = np.minimum(bad.get(name, self.length), position)
            self.learning_seconds += time.perf_counter() - begun
        finite = finite_per_seed(state.params, len(state.iteration))
        bad["params"] = np.where(finite, self.length, self.length - 1)
        return state, totals, bad

    def close(self) -> None:
        self.envs.close()


@jax.jit
def _first(tree: Any) -> Any:
    """The first seed of a tree [seeds, ...]; one program, since indexing leaf by leaf costs more than acting."""
    return jax.tree.map(lambda x: x[0], tree)


def _with_seed(tree: Any) -> Any:
    """A tree of one seed with leading axis [1]."""
    return jax.tree.map(lambda x: x[None], tree)


def require_one_process() -> None:
    """Raises UsageError where there are several, of which one would begin all episodes."""
    if jax.process_count() > 1:
        raise UsageError(
            f"environments of Gymnasium are trained in by one process, got {jax.process_count()}; it may have several "
            "devices and seeds"
        )


@with_own_numerics
def train(
    make: Callable[..., Algorithm],
    config: Any,
    env: HostEnv,
    run: RunConfig,
    tasks: Tasks | None = None,
    *,
    directory: Path | None = None,
    identity: Identity | None = None,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
    params: Any = None,
) -> RunResult:
    """`engine.train.train` for an environment on the host.

    Args:
        make: that of an algorithm. config: its settings.
        tasks: None: that of `env.default_params`.
        directory, identity, resume, stop: as there.
        params: to begin with, [seeds, ...]; None: new ones.

    Raises:
        UsageError: settings that do not fit, a program that would have an episode go back, a folder that exists, cannot
            be written or is another run's.
        DivergedError: a metric or parameter became NaN or infinite; checkpoints from before are kept.
    """
    run.validate()
    require_one_process()
    tasks = single(env.default_params) if tasks is None else tasks
    kept: Any = {"directory": directory, "identity": identity, "resume": resume, "stop": stop}
    skip = run.on_nan == "skip"
    if not acts_on_host(config, run, env):
        algorithm, starts = begun_with(make(config, env, tasks), run, params)
        trainer = Calling(Compiled(algorithm, skip=skip), env, seed_keys(run) if starts is None else starts)
        return train_with(algorithm, run, trainer=trainer, starts=starts, **kept)
    # OnHost.begin fills the replay buffer instead of `init`
    initial = replace(config, warmup_steps=0) if hasattr(config, "warmup_steps") else config
    algorithm, starts = begun_with(make(initial, env.outline(), tasks), run, params)
    alone = OnHost(algorithm, config, env, skip=skip)
    result = train_with(algorithm, run, trainer=alone, starts=starts, **kept)
    if not run.quiet:
        spent = f"{alone.acting_seconds:.0f} s of acting on the host, {alone.learning_seconds:.0f} s of learning"
        print(spent, file=sys.stderr, flush=True)
    return result
