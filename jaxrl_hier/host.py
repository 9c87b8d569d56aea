"""Gymnasium environments, which live on the host, for learners from replay: acting there, learning compiled.

    jaxrl-hier train her-ddpg --env gymnasium:FetchReach-v4                 the robots need the extra `robotics`
    jaxrl_hier.train("sac", "gymnasium:Pendulum-v1", out="runs/pendulum")
    jaxrl_hier.train("sac", HostEnv(lambda: MyEnv()))                       with more to say about an environment

The memory, the relabelling and the updates are those of the compiled `replay` loop, one call of `Algorithm.learn` per
iteration. Only the rollout before it is another: a policy compiled for all environments side by side, and
`gymnasium.vector` to step them. Goals are gymnasium-robotics' dicts as they come.

What differs from environments that are compiled: one seed and one device at a time, and a run that is resumed begins
its episodes anew, with the memory that it had.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import vector
from gymnax.environments import environment, spaces

from jaxrl_envs import boxes
from jaxrl_envs.goals import PARTS, is_goal_env
from jaxrl_envs.resetting import select
from jaxrl_envs.tasks import single
from jaxrl_hier.checks import DivergedError, UsageError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine import replay as memory
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.identity import Identity
from jaxrl_hier.engine.logging import Progress, RunLog
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.rollout import begin as begin_world
from jaxrl_hier.engine.rollout import first_episode
from jaxrl_hier.engine.room import require_room
from jaxrl_hier.engine.train import (
    Milestones,
    RunConfig,
    RunResult,
    initial,
    nothing_left_of_refused,
    prepare_directory,
)
from jaxrl_hier.engine.types import ActInput, Agent, Algorithm, Average, NamedArray, TrainState, Transition, World
from jaxrl_hier.gymnasium_boundary import Converted, name_of, time_limit
from jaxrl_hier.learning.off_policy import ReplayConfig


@struct.dataclass
class HostState(environment.EnvState):
    """Of an environment that keeps its state to itself."""

    time: jax.Array  # [] int32


class HostEnv:
    """What a learner asks of an environment before and while it learns: spaces, time limit, reward of a goal.

    It has the form of a gymnax environment, whose `reset_env` and `step_env` give zeros: they tell shapes and are
    never played.

    Args:
        make: an id of Gymnasium's registry, or a function () -> gymnasium.Env.
        compute_reward: for an environment with goals, (achieved, desired) -> reward, [] float32, in jax. None: −1 and
            0 beyond and within the environment's `distance_threshold`, as the sparse robots of gymnasium-robotics have.
        settings: of the environment, for `gymnasium.make`.

    Raises:
        UsageError: no such environment, a package that is missing, a space or a reward that cannot be used.
    """

    on_host = True

    def __init__(
        self,
        make: str | Callable[[], Any],
        compute_reward: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
        **settings: Any,
    ):
        build = partial(_gymnasium_make, make, **settings) if isinstance(make, str) else partial(make, **settings)
        example = build()
        if not isinstance(example, gymnasium.Env):
            raise UsageError(
                f"a HostEnv is of a function () -> gymnasium.Env; this one returns {type(example).__name__}"
            )
        self.build: Callable[[], Any] = lambda: Converted(build())
        self._make = make if isinstance(make, str) else None
        self._settings = settings
        self._class = type(example.unwrapped)  # which tells a run from another, as `_settings` do
        self.name, limit = name_of(example), time_limit(example)
        if limit is None:
            raise UsageError(f"{self.name} has no time limit, which episodes need: wrap it in gymnasium's TimeLimit")
        self.default_params = environment.EnvParams(max_steps_in_episode=limit)
        converted = Converted(example)
        self._observations = _converted(converted.observation_space, self.name)
        self._actions = _converted(converted.action_space, self.name)
        if isinstance(self._observations, spaces.Dict):
            reward = compute_reward or _sparse_reward(example)
            _compare_rewards(reward, example)
            self.compute_reward = lambda achieved, desired, params: reward(achieved, desired)
        example.close()

    def observation_space(self, params: Any = None) -> Any:
        """gymnax's form of Gymnasium's space; float64 becomes float32."""
        return self._observations

    def action_space(self, params: Any = None) -> Any:
        """Likewise."""
        return self._actions

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Any, HostState]:
        """Zeros in the shape of an observation."""
        return _zeros(self._observations), HostState(time=jnp.zeros((), jnp.int32))

    def step_env(self, key: jax.Array, state: HostState, action: Any, params: Any) -> tuple[Any, ...]:
        """Zeros in the shape of a step."""
        return _zeros(self._observations), state, jnp.zeros(()), jnp.zeros((), bool), {}

    def is_truncated(self, state: HostState, params: Any) -> jax.Array:
        """Never: the environment itself says so on the host."""
        return jnp.zeros((), bool)

    def vector(self, count: int) -> Any:
        """`count` environments side by side, a gymnasium.vector.VectorEnv that leaves resets to us."""
        # in this process: jax has threads, beside which a fork may lock up
        return vector.SyncVectorEnv([self.build] * count, autoreset_mode=vector.AutoresetMode.DISABLED)

    def rendered(self) -> Any:
        """One environment that renders to arrays; None where it cannot: no such mode, a package that is missing, or a
        function whose environments have another mode."""
        try:
            if self._make is not None:
                return Converted(_gymnasium_make(self._make, **self._settings | {"render_mode": "rgb_array"}))
            env = self.build()
            if env.render_mode == "rgb_array":
                return env
            env.close()
        except Exception:  # a package that only rendering needs raises what it likes
            pass
        return None


def _gymnasium_make(name: str, **settings: Any) -> Any:
    try:
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
    except ImportError:
        pass
    try:
        return gymnasium.make(name, **settings)
    except (gymnasium.error.Error, ImportError) as error:
        hint = "; the robots need the extra: pip install 'jaxrl-hier[robotics]'"
        raise UsageError(f"Gymnasium cannot make {name!r}: {str(error).splitlines()[0]}{hint}") from error


def _converted(space: Any, name: str) -> Any:
    if isinstance(space, gymnasium.spaces.Box):
        dtype = np.float32 if space.dtype == np.float64 else space.dtype
        return spaces.Box(space.low, space.high, space.shape, dtype)
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return spaces.Discrete(int(space.n))
    if isinstance(space, gymnasium.spaces.Dict) and set(space) == set(PARTS):
        return spaces.Dict({part: _converted(space[part], name) for part in PARTS})
    raise UsageError(
        f"{name} has a space {space}; what can be used are Box, Discrete from 0, and the dict of {', '.join(PARTS)}"
    )


def _sparse_reward(example: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    threshold = getattr(example.unwrapped, "distance_threshold", None)
    if threshold is None:
        raise UsageError(
            f"{type(example.unwrapped).__name__} has no distance_threshold to take its reward from: give "
            "compute_reward, (achieved, desired) -> reward in jax"
        )
    return lambda achieved, desired: jnp.where(jnp.linalg.norm(achieved - desired) > threshold, -1.0, 0.0)


def _compare_rewards(reward: Callable[[jax.Array, jax.Array], jax.Array], example: Any) -> None:
    """Both on all pairs of the goals that a random episode comes by."""
    obs, _ = example.reset(seed=0)
    example.action_space.seed(0)
    goals, over = [obs["desired_goal"], obs["achieved_goal"]], False
    while not over:
        obs, _, terminated, truncated, info = example.step(example.action_space.sample())
        goals.append(obs["achieved_goal"])
        over = terminated or truncated
    theirs = [[example.unwrapped.compute_reward(a, d, info) for d in goals] for a in goals]
    stacked = jnp.asarray(np.stack(goals), jnp.float32)
    ours = jax.vmap(jax.vmap(reward, (None, 0)), (0, None))(stacked, stacked)
    wrong = np.mean(~np.isclose(ours, theirs, atol=1e-5))
    if wrong > 0.01:  # at the rim of a threshold float32 may decide otherwise
        raise UsageError(
            f"compute_reward differs from the environment's own on {wrong:.0%} of the pairs of goals of an episode; "
            "without the argument compute_reward a sparse reward of −1 and 0 is assumed"
        )


def _zeros(space: Any) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _zeros(part) for name, part in space.spaces.items()}
    return jnp.zeros(space.shape, space.dtype)


# Acting


def actor(env: HostEnv, agent: Agent, *, greedy: bool = False, uniform: bool = False) -> Callable[..., Any]:
    """A compiled function: params, world [B] -> actions [B, ...], extras, and the world with its next carry and key."""

    def one(params: Any, world: World) -> tuple[Any, Any, World]:
        key, key_start, key_act = jax.random.split(world.key, 3)
        carry = select(world.inp.first, agent.start(params, key_start), world.carry)
        action, carry, extras = agent.act(params, carry, world.inp, key_act, greedy)
        if uniform:
            action = boxes.sample(env.action_space(), key_start)
        return action, extras, replace(world, carry=carry, key=key)

    return jit(jax.vmap(one, (None, 0)))


def begin(env: HostEnv, envs: Any, world: World, seed: int) -> World:
    """`world` [B] at the start of an episode each."""
    obs = _cast(envs.reset(seed=int(seed))[0], env.observation_space())
    count, space = envs.num_envs, env.action_space()
    zeros: Any = lambda dtype, *shape: np.zeros((count, *shape), dtype)
    inp = ActInput(obs, zeros(space.dtype, *space.shape), zeros(np.float32), ~zeros(bool))
    return replace(world, inp=inp, ep_return=zeros(np.float32), ep_length=zeros(np.int32))


def rollout(
    env: HostEnv, envs: Any, act: Callable[..., Any], params: Any, world: World, length: int
) -> tuple[World, Transition, np.ndarray]:
    """`engine.rollout.rollout` on the host: the world after it, transitions [length, B, ...], success [length, B].

    Success is what the environments report as "is_success" or "success", False where they do not. An episode is cut at
    the time limit, also where only the environment's specification says it.
    """
    rows, successes = [], []
    for _ in range(length):
        inp = world.inp
        action, extras, world = act(params, world)
        action = np.asarray(action)
        next_obs, reward, terminated, truncated, info = envs.step(action)
        next_obs = obs = _cast(next_obs, env.observation_space())
        reward = reward.astype(np.float32)
        total, steps = np.asarray(world.ep_return) + reward, np.asarray(world.ep_length) + np.int32(1)
        truncated = (truncated | (steps >= env.default_params.max_steps_in_episode)) & ~terminated
        rows.append(Transition(inp.obs, action, reward, terminated, truncated, next_obs, inp.first, extras))
        successes.append(np.asarray(info.get("success", np.zeros(len(reward))), bool))
        over: Any = terminated | truncated
        if over.any():
            obs = _cast(envs.reset(options={"reset_mask": over})[0], env.observation_space())
        action, reward, total, steps = (_emptied(over, x) for x in (action, reward, total, steps))
        world = replace(world, inp=ActInput(obs, action, reward, over), ep_return=total, ep_length=steps)
    return world, jax.tree.map(lambda *x: np.stack(x), *rows), np.stack(successes)


def _emptied(where: np.ndarray, x: np.ndarray) -> Any:
    """x [B, ...], zero in the environments [B] that begin anew."""
    return np.where(where.reshape(-1, *[1] * (x.ndim - 1)), np.zeros_like(x), x)


def _cast(obs: Any, space: Any) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _cast(obs[name], part) for name, part in space.spaces.items()}
    return np.array(obs, space.dtype)


AT_ONCE = 10  # environments that an evaluation plays side by side


def play(env: HostEnv, agent: Agent, params: Any, key: jax.Array, episodes: int) -> dict[str, NamedArray]:
    """Greedy episodes: "return" and "length" [episode]; with goals "success", in any step, and "success_at_end" too."""
    count = min(AT_ONCE, episodes)
    key, key_seed = jax.random.split(key)
    envs, act = env.vector(count), actor(env, agent, greedy=True)
    world = _worlds(env, agent, params, jax.random.split(key, count))
    found: dict[str, list[Any]] = {"return": [], "length": [], "success": [], "success_at_end": []}
    seed = int(jax.random.bits(key_seed, dtype=jnp.uint16)) * 1000
    for played in range(0, episodes, count):
        world = begin(env, envs, world, seed + played)
        _, seen, success = rollout(env, envs, act, params, world, env.default_params.max_steps_in_episode)
        mask = np.asarray(first_episode(seen)) > 0
        length = mask.sum(axis=0)
        found["return"].append((seen.reward * mask).sum(axis=0))
        found["length"].append(length)
        found["success"].append((success & mask).any(axis=0))
        found["success_at_end"].append(success[length - 1, np.arange(count)])
    envs.close()
    if not is_goal_env(env):
        del found["success"], found["success_at_end"]
    values: Any = {name: np.concatenate(x)[:episodes].astype(np.float32) for name, x in found.items()}
    return {name: NamedArray(x, ("episode",)) for name, x in values.items()}


@with_own_numerics
def evaluate(agent: Agent, config: Any, env: HostEnv, state: TrainState) -> dict[str, NamedArray]:
    """`play` of a state with leading axis [1], the seed: axes ("seed", "episode"). The key follows from the state."""
    state = jax.tree.map(lambda x: x[0], state)
    measured = play(env, agent, state.params, jax.random.fold_in(state.key, state.iteration), config.eval_episodes)
    return {name: NamedArray(m.values[None], ("seed", *m.axes)) for name, m in measured.items()}


def _worlds(env: HostEnv, agent: Agent, params: Any, keys: jax.Array) -> World:
    return jax.vmap(lambda key: begin_world(env, agent, single(env.default_params), params, key))(keys)


# Training


@with_own_numerics
def train(
    make: Callable[..., Algorithm],
    config: Any,
    env: HostEnv,
    run: RunConfig,
    *,
    directory: Path | None = None,
    identity: Identity | None = None,
    resume: bool = False,
) -> RunResult:
    """`engine.train.train` for an environment on the host.

    Args:
        make: of an algorithm that learns from replay. config: its settings.
        directory, identity, resume: as there.

    Raises:
        UsageError: settings that do not fit, an algorithm that does not learn from replay, a folder that is another's.
        DivergedError: a metric became NaN or infinite.
    """
    run.validate()
    if run.seeds != 1 or run.devices != 1:
        raise UsageError(f"on the host one seed runs on one device, got seeds {run.seeds} and devices {run.devices}")
    if not isinstance(config, ReplayConfig):
        raise UsageError("environments on the host are for algorithms that learn from replay: dqn, ddpg, td3 and sac")
    # the memory's first steps are taken below, by random actions as in `begin_replay`
    algorithm: Any = make(replace(config, warmup_steps=0), env, single(env.default_params))
    shapes, start = initial(algorithm, run)
    require_room(shapes)
    has_checkpoint = directory is not None and prepare_directory(directory, identity, run, resume)
    with nothing_left_of_refused(directory, resume):
        state = checkpoint.restore(directory, shapes) if directory is not None and has_checkpoint else start()
        return _run(algorithm, config, env, run, state, directory, has_checkpoint, resume)


def _run(
    algorithm: Any,
    config: Any,
    env: HostEnv,
    run: RunConfig,
    state: TrainState,
    directory: Path | None,
    has_checkpoint: bool,
    resume: bool,
) -> RunResult:
    """`train` in a folder that is prepared, from an initial or a restored state."""
    state = jax.tree.map(lambda x: x[0], state)
    done, length = int(state.iteration), algorithm.env_steps // config.environments
    if done > run.iterations:
        raise UsageError(
            f"the run is at iteration {done} already; iterations must be at least that, got {run.iterations}"
        )
    envs = env.vector(config.environments)
    world = begin(env, envs, state.world, run.seed + done)
    if not has_checkpoint and config.warmup_steps:
        explore, steps = actor(env, algorithm.agent, uniform=True), config.warmup_steps // config.environments
        world, transitions, _ = rollout(env, envs, explore, state.params, world, steps)
        state = replace(state, memory=jit(memory.add, donate_argnums=0)(state.memory, transitions))
    act, learn = actor(env, algorithm.agent), jit(algorithm.learn, donate_argnums=0)
    compiled: Any = None
    log = RunLog(directory, [run.seed], run.tensorboard, done, run.wandb)
    acting = learning = compile_seconds = 0.0
    of_all_seeds = lambda: jax.tree.map(lambda x: x[None], state)
    with Progress(run.iterations, done, run.quiet) as progress:
        milestones = Milestones(run, directory, partial(evaluate, algorithm.agent, config, env), progress.say)
        try:
            if resume:
                milestones.resumed(of_all_seeds(), done)
            while done < run.iterations:
                begun, metrics = time.perf_counter(), []
                iterations = run.log_every - done % run.log_every  # fewer once, as in engine.train
                for _ in range(iterations):
                    before = time.perf_counter()
                    after, transitions, success = rollout(env, envs, act, state.params, world, length)
                    state, world = replace(state, world=world), after
                    acting += time.perf_counter() - before
                    if compiled is None:
                        before = time.perf_counter()
                        compiled = learn.lower(state, world, transitions).compile()
                        compile_seconds = time.perf_counter() - before
                        begun += compile_seconds
                        progress.say(f"compiled in {compile_seconds:.1f} s")
                    before = time.perf_counter()
                    state, measured = compiled(state, world, transitions)
                    if is_goal_env(env):
                        over = transitions.terminated | transitions.truncated
                        measured |= {"success_at_end": Average((success & over).sum(), over.sum())}
                    metrics.append(jax.device_get(measured))
                    learning += time.perf_counter() - before
                done += iterations
                speed = iterations * algorithm.env_steps / (time.perf_counter() - begun)
                means = _means(metrics, done)
                row = {"iteration": done, "env_steps": done * algorithm.env_steps, "steps_per_second": round(speed, 1)}
                log.write([row | {"seed": run.seed} | means])
                progress.update(done, means, speed)
                if milestones.saves(done) or milestones.measures(done):
                    milestones.reached(of_all_seeds(), done)
        finally:
            log.close()
            envs.close()
        evaluation = milestones.final(of_all_seeds(), done)
    progress.say(f"{acting:.0f} s of acting on the host, {learning:.0f} s of learning")
    return RunResult(of_all_seeds(), log.rows, evaluation, compile_seconds, acting + learning, directory)


def _means(metrics: list[dict[str, Any]], done: int) -> dict[str, float]:
    """Over the iterations of a logged row; an Average of nothing is left out."""
    means = {}
    for name in metrics[0]:
        each = [m[name] if isinstance(m[name], Average) else Average(m[name], jnp.ones(())) for m in metrics]
        total, count = sum(float(x.total) for x in each), sum(float(x.count) for x in each)
        if not np.isfinite(total):
            raise DivergedError(f"{name} is not finite in the iterations {done - len(metrics) + 1} to {done}")
        if count:
            means[name] = total / count
    return means
