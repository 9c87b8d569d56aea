"""Four rooms under a random policy: this project beside gymnax, navix and XLand-MiniGrid, in one run on the same cores.

The packages have Pythons of their own, `--pythons navix=… xminigrid=…` (navix needs Python 3.12 since 0.7.5); rows of a
package without one are left out.

Counted: environment steps per second of 2048 environments × 5000 steps, one compiled scan with vmap inside; navix and
XLand-MiniGrid take a hundredth of the steps. A step draws a random action, moves, and resets the environment where its
episode ended. State and observation are carried from step to step and rewards are counted, so that none of them can be
dropped. Parameters are data of the compiled program where the package has any that can be. Compile seconds, tracing
included, are apart. Keys are fed in two ways, alike for all:

- batch: in every step one key is split into one for the batch of actions and one per environment for the steps;
- carried: every environment carries its key and splits it in every step, also for its action.

Ours and gymnax's each run twice: through gymnax's own `Environment.step`, which splits each key once more for the
reset, and through `step_env`, `reset_env` and a select, with two keys from the outset. Every contender has its own
process and runs while the others wait. The rounds alternate between them, so that a slow minute of the machine hits
all; medians and their ratio are reported.

The tasks: ours and gymnax's are the same (13 × 13, goal, start, noise and time limit) and reach the goal equally often
(`goals_per_million_steps`); ours observes row and column, gymnax's the goal's too. navix and XLand-MiniGrid have
MiniGrid's four rooms, made 13 × 13 as well: doors, goal and start drawn anew in each episode, turning and walking, no
noise, symbolic images as observations (navix also without). They keep keys of their own for the resets, so that only
actions need any.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Other packages are imported where they are needed: a contender's Python need not have them.

OURS, OURS_SELECT = "ours, Environment.step", "ours, step_env and reset_env"
GYMNAX, GYMNAX_SELECT = "gymnax, Environment.step", "gymnax, step_env and reset_env"
NAVIX, NAVIX_BLIND, XLAND = "navix", "navix, no observation", "XLand-MiniGrid"
PACKAGES = {  # on PyPI, of each contender
    OURS: "jaxrl-hier",
    OURS_SELECT: "jaxrl-hier",
    GYMNAX: "gymnax",
    GYMNAX_SELECT: "gymnax",
    NAVIX: "navix",
    NAVIX_BLIND: "navix",
    XLAND: "xminigrid",
}
ENVIRONMENTS, STEPS = 2048, 5000  # of each environment, per contender, way of feeding keys and round
SLOW = (NAVIX, NAVIX_BLIND, XLAND)
PEERS = {OURS: (GYMNAX, *SLOW), OURS_SELECT: (GYMNAX, GYMNAX_SELECT, *SLOW)}


# A contender


class Contender(NamedTuple):
    reset: Callable[..., Any]  # key, params -> carry: state and observation
    step: Callable[..., Any]  # keys, carry, action, params -> carry, reward; resets where the episode ended
    keys: int  # that a step takes
    actions: int
    params: Any = None


def make(name: str) -> Contender:
    if name in (OURS, OURS_SELECT):
        from jaxrl_envs.four_rooms import FourRooms, cell_index

        env = FourRooms(observation="coordinates")
        task = env.default_params.replace(goal=cell_index(8, 9), start=cell_index(4, 1), max_steps_in_episode=500)
        return through_step(env, task) if name == OURS else through_select(env, task)
    if name in (GYMNAX, GYMNAX_SELECT):
        import gymnax

        env, task = gymnax.make("FourRooms-misc")
        return through_step(env, task) if name == GYMNAX else through_select(env, task)
    return minigrid_of_xland() if name == XLAND else minigrid_of_navix(observed=name == NAVIX)


def through_step(env: Any, params: Any) -> Contender:
    def step(keys: Any, carry: Any, action: Any, params: Any) -> Any:
        obs, state, reward, *_ = env.step(keys[0], carry[1], action, params)
        return (obs, state), reward

    return Contender(env.reset_env, step, 1, env.num_actions, params)


def through_select(env: Any, params: Any) -> Contender:
    def step(keys: Any, carry: Any, action: Any, params: Any) -> Any:
        obs, state, reward, terminated, _ = env.step_env(keys[0], carry[1], action, params)
        done = terminated | env.is_truncated(state, params)
        return jax.tree.map(partial(jnp.where, done), env.reset_env(keys[1], params), (obs, state)), reward

    return Contender(env.reset_env, step, 2, env.num_actions, params)


def minigrid_of_navix(observed: bool) -> Contender:
    import navix

    options = {} if observed else {"observation_fn": navix.observations.none}
    env = navix.make("Navix-FourRooms-13x13-v0", **options)

    def step(keys: Any, carry: Any, action: Any, params: Any) -> Any:
        carry = env.step(carry, action)  # a reset takes a step of its own, without a move
        return carry, carry.reward

    return Contender(lambda key, params: env.reset(key), step, 0, len(env.action_set))


def minigrid_of_xland() -> Contender:
    import xminigrid
    from xminigrid.wrappers import GymAutoResetWrapper

    env, params = xminigrid.make("MiniGrid-FourRooms", height=13, width=13)  # params: static fields only
    env = GymAutoResetWrapper(env)

    def step(keys: Any, carry: Any, action: Any, _: Any) -> Any:
        carry = env.step(params, carry, action)
        return carry, carry.reward

    return Contender(lambda key, _: env.reset(params, key), step, 0, env.num_actions(params))


# The loop, the same for all


def batch(contender: Contender, envs: int, steps: int) -> Callable[..., Any]:
    def body(params: Any, state: Any, _: None) -> Any:
        key, carry = state
        key, key_action, key_step = jax.random.split(key, 3)
        keys = jax.random.split(key_step, (envs, contender.keys))
        action = random_action(key_action, contender.actions, (envs,))
        carry, reward = jax.vmap(contender.step, in_axes=(0, 0, 0, None))(keys, carry, action, params)
        return (key, carry), jnp.sum(reward > 0)

    def run(keys: Any, carry: Any, params: Any) -> Any:
        (key, carry), goals = jax.lax.scan(partial(body, params), (keys[0], carry), length=steps)
        return keys.at[0].set(key), carry, jnp.sum(goals)

    return run


def carried(contender: Contender, envs: int, steps: int) -> Callable[..., Any]:
    def one(key: Any, carry: Any, params: Any) -> Any:
        key, key_action, *keys = jax.random.split(key, 2 + contender.keys)
        return key, *contender.step(keys, carry, random_action(key_action, contender.actions), params)

    def body(params: Any, state: Any, _: None) -> Any:
        keys, carry = state
        keys, carry, reward = jax.vmap(one, in_axes=(0, 0, None))(keys, carry, params)
        return (keys, carry), jnp.sum(reward > 0)

    def run(keys: Any, carry: Any, params: Any) -> Any:
        (keys, carry), goals = jax.lax.scan(partial(body, params), (keys, carry), length=steps)
        return keys, carry, jnp.sum(goals)

    return run


MODES = {"batch": batch, "carried": carried}


def random_action(key: jax.Array, actions: int, shape: tuple[int, ...] = ()) -> jax.Array:
    """Cheaper than `randint`, which draws twice to rule out a bias of 2⁻³⁰."""
    return (jax.random.bits(key, shape, jnp.uint32) % actions).astype(jnp.int32)


# Processes


def work(name: str, envs: int, steps: int) -> None:
    """A contender's process: compiles, then runs once for each line of its input, which names a way of feeding keys."""
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    contender = make(name)
    keys = jax.random.split(jax.random.key(0), envs)
    carry = jax.jit(jax.vmap(contender.reset, in_axes=(0, None)))(keys, contender.params)
    programs, states, compile_seconds = {}, {}, {}
    for mode, loop in MODES.items():
        begun = time.perf_counter()
        programs[mode] = jax.jit(loop(contender, envs, steps)).lower(keys, carry, contender.params).compile()
        compile_seconds[mode] = time.perf_counter() - begun
        states[mode] = (keys, carry)
    package = PACKAGES[name]
    versions = {package: version(package), "jax": jax.__version__, "python": sys.version.split()[0]}
    print(json.dumps({"compile_seconds": compile_seconds, "versions": versions}), flush=True)
    for line in sys.stdin:
        mode = line.strip()
        begun = time.perf_counter()
        *state, goals = jax.block_until_ready(programs[mode](*states[mode], contender.params))
        seconds = time.perf_counter() - begun
        states[mode] = tuple(state)
        print(
            json.dumps(
                {
                    "steps_per_second": envs * steps / seconds,
                    "goals_per_million_steps": 1e6 * int(goals) / (envs * steps),
                }
            ),
            flush=True,
        )


def rows(setup: Any) -> Iterator[dict[str, Any]]:
    from ._timing import Worker

    envs, steps = (16, 100) if setup.smoke else (ENVIRONMENTS, STEPS)
    workers: dict[str, Worker] = {}
    speeds: dict[tuple[str, str], list[float]] = {}
    goals: dict[tuple[str, str], list[float]] = {}
    for name, package in PACKAGES.items():
        if package in setup.pythons or package in ("jaxrl-hier", "gymnax"):
            own = max(1, steps // 100) if name in SLOW else steps
            workers[name] = Worker([setup.python(package), __file__, "--work", name, str(envs), str(own)])
    about = {name: worker.answer() for name, worker in workers.items()}
    for _ in range(1 + setup.rounds):  # the first: page faults, thread pools
        for mode, (name, worker) in product(MODES, workers.items()):
            measured = worker.ask(mode)
            speeds.setdefault((name, mode), []).append(measured["steps_per_second"])
            goals.setdefault((name, mode), []).append(measured["goals_per_million_steps"])
    for worker in workers.values():
        worker.close()
    for mode, us in product(MODES, PEERS):
        for them in PEERS[us]:
            if them in workers:
                names, key = (us, them), lambda name, mode=mode: (name, mode)
                goals_of = {name: statistics.mean(goals[key(name)][1:]) for name in names}
                yield compare(mode, us, them, speeds, about) | {"goals_per_million_steps": goals_of}


def compare(mode: str, ours: str, theirs: str, speeds: Mapping[Any, list[float]], about: Mapping[str, Any]) -> dict:
    """A row; the first round is not counted."""
    mine, others = speeds[ours, mode][1:], speeds[theirs, mode][1:]
    pairs = [us / them for us, them in zip(mine, others)]
    us, them = statistics.median(mine), statistics.median(others)
    return {
        "what": f"four rooms, random policy, keys {mode}: {ours}",
        "unit": "environment steps per second",
        "ours": us,
        "peer": theirs,
        "theirs": them,
        "ratio": us / them,
        "compile_seconds": about[ours]["compile_seconds"][mode],
        "their_compile_seconds": about[theirs]["compile_seconds"][mode],
        "versions": {name: about[name]["versions"] for name in (ours, theirs)},
        "aggregate": False,
        "note": f"medians of {len(pairs)} rounds, ratios of single rounds {min(pairs):.1f} to {max(pairs):.1f}",
    }


if __name__ == "__main__":
    work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
