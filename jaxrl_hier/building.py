"""From names and settings to an algorithm on an environment, with one-line errors for what cannot work."""

import dataclasses
import inspect
import logging
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.contract import name_of, on_host
from jaxrl_envs.tasks import require_batches, single
from jaxrl_hier import registry
from jaxrl_hier.checks import DivergedError, UsageError, unknown
from jaxrl_hier.engine.chunk import initial, make_chunk
from jaxrl_hier.engine.loops import random_rollout
from jaxrl_hier.engine.room import Part, size
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import Algorithm, Tasks
from jaxrl_hier.relations import multiple, settled
from jaxrl_hier.settings import renamings, shown

GYMNASIUM = "gymnasium:"  # before an id of Gymnasium's registry, see `host`


def acts_on_host(config: Any, run: RunConfig, env: Any) -> bool:
    """Whether a run acts in its environment on the host, between compiled updates, as one seed of a flat learner does
    in one of Gymnasium without tasks."""
    if not on_host(env) or env.set_task is not None:
        return False
    return run.seeds == run.devices == 1 and getattr(config, "on_host", False)


def compiled_with(config: Any, run: RunConfig, env: Any) -> Any:
    """The environment that a run's programs are made of: only the shapes of one that it acts in on the host."""
    return env.outline() if acts_on_host(config, run, env) else env


def config_of(name: str, settings: dict[str, Any], also_known: set[str] | None = None) -> Any:
    """The `Config` of an algorithm, from its preset and `settings`.

    Args:
        also_known: names of other settings, for the message about an unknown one.
    """
    module = registry.module(name)
    known = {f.name for f in dataclasses.fields(module.Config)}
    # arguments of `make` after config, env and tasks, such as options
    objects = [*inspect.signature(module.make).parameters][3:]
    for key, value in settings.items():
        if key in objects and not isinstance(value, str):
            raise UsageError(f"{key} of your own are the last argument of {module.__name__}.make(config, env, tasks)")
        new = renamings(module.Config).get(key)
        if isinstance(new, str):
            raise UsageError(f"{key} of {name} is now called {new}")
        if key not in known:
            raise unknown(f"setting of {name}", key, known | (also_known or set()))
    return module.Config(**registry.entry(name).config | settings)


def fitted(config: Any, run: RunConfig, env: Any, tasks: Tasks, said: Collection[str]) -> tuple[Any, RunConfig]:
    """Both configs, with settings that the user has not `said` adjusted to the others and to the environment, see
    `jaxrl_hier.relations`."""
    with broken_contracts_in_one_line(env, tasks):
        own = config.relations(env, tasks)
    # which is refused and not mended: what a run learns does not depend on how many devices share the work
    divided = multiple(config.side_by_side, "devices")._replace(gives={})
    shared = divided._replace(fits=lambda s: s.seeds % s.devices == 0 or divided.fits(s))
    relations = [*run.relations(env, tasks), *own, shared]
    values = settled(vars(config) | vars(run), relations, said)
    new = lambda old: dataclasses.replace(old, **{name: values[name] for name in vars(old)})
    return new(config), new(run)


def largest_setting(
    name: str, config: Any, run: RunConfig, env: Any, tasks: Tasks, said: Collection[str], part: Part = "state"
) -> str:
    """The setting that, halved, makes a part of a run smallest; one that the user set, if that helps.

    Args:
        part: the initial state, by its size; an iteration or an evaluation, by the size of all that it computes.
    """

    def halved(setting: str, value: Any) -> float:
        half = tuple(x // 2 for x in value) if isinstance(value, tuple) else value // 2
        change = lambda old: dataclasses.replace(old, **{setting: half} if hasattr(old, setting) else {})
        try:
            smaller, fewer = fitted(change(config), change(run), env, tasks, {*said, setting})
            return footprint(registry.module(name).make(smaller, env, tasks), fewer, part)
        except ValueError:  # no such half, as of a size that others need
            return math.inf

    whole = lambda x: type(x) is int and x > 1
    values = {
        k: v for k, v in (vars(config) | vars(run)).items() if whole(v) or (isinstance(v, tuple) and all(map(whole, v)))
    }
    sizes = {k: halved(k, values[k]) for k in values if k in said}
    if not sizes or min(sizes.values()) > 0.9 * halved("", 0):
        sizes = {k: halved(k, values[k]) for k in values}
    return min(sizes, key=lambda k: sizes[k])


def footprint(algorithm: Algorithm, run: RunConfig, part: Part) -> int:
    """Bytes of the initial state and of the arrays that a part computes. An array of the shape of one of the state's is
    not counted, since it takes that one's place."""
    state = initial(algorithm, run)[0]
    if part == "state":
        return size(state)
    one = make_chunk(algorithm, 1) if part == "iterations" else jax.vmap(lambda s: algorithm.evaluate(s, s.key))
    within = {(shape, x.dtype) for x in jax.tree.leaves(state) for shape in (x.shape, x.shape[1:])}
    computed = [x for x in arrays_of(jax.make_jaxpr(one)(state).jaxpr) if (x.shape, x.dtype) not in within]
    return size(state) + size(computed)


def arrays_of(jaxpr: Any) -> list[Any]:
    """The shapes of the results of all operations in a jaxpr and in those within it."""
    shapes = [x.aval for equation in jaxpr.eqns for x in equation.outvars if hasattr(x.aval, "shape")]
    inner = [x for equation in jaxpr.eqns for x in jax.tree.leaves([*equation.params.values()], is_leaf=_is_program)]
    return shapes + [
        x for program in inner if _is_program(program) for x in arrays_of(getattr(program, "jaxpr", program))
    ]


def _is_program(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def built(name: str, config: Any, env: Any, tasks: Tasks) -> Algorithm:
    """The algorithm's `make`."""
    with broken_contracts_in_one_line(env, tasks):
        return registry.module(name).make(config, env, tasks)


@contextmanager
def broken_contracts_in_one_line(env: Any, tasks: Tasks) -> Iterator[None]:
    """Turn errors of an environment under tracing, or of one of Gymnasium that a program calls, into one-line
    UsageErrors, without JAX's traceback.

    For other exceptions, `check_env` decides whether the environment is to blame.
    """
    from jaxrl_envs.check import EnvCheckError, problems

    try:
        with _quiet_callbacks(env) if on_host(env) else nullcontext():
            yield
    except EnvCheckError as error:
        raise UsageError(str(error)) from None
    except jax.errors.JaxRuntimeError:
        failure = env.episodes.failure if on_host(env) else None
        if failure is None:
            raise
        raise UsageError(f"{name_of(env)}: {failure}") from None
    except (UsageError, DivergedError, OSError, MemoryError):
        raise
    except Exception:
        if isinstance(jnp.zeros(()), jax.core.Tracer):  # the checker plays, which it cannot under a trace
            raise
        # an environment of Gymnasium is examined where it is converted
        found = [] if on_host(env) else problems(env, tasks, episodes=1, max_steps=100)
        if not found:
            raise
        name = getattr(env, "name", type(env).__name__)
        raise UsageError(f"{name} breaks the environment contract: {'; '.join(found)}") from None


@contextmanager
def _quiet_callbacks(env: Any) -> Iterator[None]:
    """Keep JAX from logging the traceback of an error in a call to the host, since the error is raised as well; an
    interrupt of the call is one of the program."""
    log, drop = logging.getLogger("jax._src.callback"), lambda record: False
    log.addFilter(drop)
    try:
        with env.episodes.passing_interrupts():
            yield
    finally:
        log.removeFilter(drop)


def require_untraced(what: str) -> None:
    """Raises UsageError inside of a function that JAX traces."""
    if isinstance(jnp.zeros(()), jax.core.Tracer):
        raise UsageError(f"{what} compiles programs and runs them: call it outside of jax.jit, not in what JAX traces")


# Environments and tasks


def environment(env: Any, tasks: Tasks | None = None) -> tuple[Any, Tasks]:
    """An environment and its tasks. `env` is a name, an object, or a pair (env, tasks) as `jaxrl_envs.make` returns it;
    `tasks` takes the place of its own."""
    import jaxrl_envs

    if isinstance(env, tuple) and len(env) == 2 and isinstance(env[1], Tasks) and tasks is None:
        env, tasks = env
    require_tasks(tasks)
    if isinstance(env, str) and not env.startswith(GYMNASIUM):
        try:
            # constants stay concrete when an algorithm is made under a trace, such as a sweep by vmap
            with jax.ensure_compile_time_eval():
                env, own = jaxrl_envs.make(env)
        except ValueError as error:
            raise UsageError(str(error)) from None
    else:
        if isinstance(env, str):
            from jaxrl_hier.host import HostEnv

            env = HostEnv(env.removeprefix(GYMNASIUM))
        require_environment(env)
        own = single(env.default_params)
    if tasks is None:
        return env, own
    if on_host(env) and env.set_task is None and not _is_only(tasks, env.default_params):
        raise UsageError(f"{name_of(env)} has no tasks: give HostEnv set_task, how it is told one")
    with broken_contracts_in_one_line(env, tasks):
        return env, tasks.in_one_dtype()


def _is_only(tasks: Tasks, params: Any) -> bool:
    """Whether `tasks` are the one task of `params`, as far as a draw tells."""
    with jax.ensure_compile_time_eval():
        drawn = tasks.sample(jax.random.key(0))
        structure: Any = jax.tree.structure(drawn)
        leaves = zip(jax.tree.leaves(drawn), jax.tree.leaves(params))
        return structure == jax.tree.structure(params) and all(jnp.array_equal(x, y) for x, y in leaves)


def require_environment(env: Any) -> None:
    """Raises UsageError for an object that is no environment; `check_env` examines environments."""
    if isinstance(env, type):
        raise UsageError(f"env is the class {env.__name__}: give an object of it, such as {env.__name__}()")
    missing = [name for name in ("default_params", "action_space", "observation_space") if not hasattr(env, name)]
    if not any(hasattr(env, name) for name in ("step_env", "step")):
        missing.append("step_env")
    if missing and hasattr(env, "unwrapped"):
        raise UsageError(
            f"{type(env).__name__} is an environment of Gymnasium: give jaxrl_hier.host.HostEnv(lambda: …)"
        )
    if missing:
        hint = "; give its tasks as `tasks`" if isinstance(env, tuple | list) else ""
        raise UsageError(
            f"env must be a name or an environment of gymnax's contract; {shown(env)} has no {', '.join(missing)}{hint}"
        )


def require_numbered_observations(env: Any, tasks: Tasks) -> None:
    """Raises UsageError where random play of an environment that others wrote leaves its Discrete observations: a table
    would learn nothing there, or for another state, and a network would see nothing."""
    from gymnax.environments import spaces  # here, since gymnax is slow to import

    space = env.observation_space(env.default_params)
    ours = type(env).__module__.partition(".")[0] in ("jaxrl_envs", "gymnax")
    if ours or on_host(env) or not isinstance(space, spaces.Discrete):
        return

    def extremes() -> jax.Array:
        seen = random_rollout(env, tasks, 16, 64)
        shown = jnp.stack([seen.obs, seen.next_obs])
        return jnp.stack([jnp.min(shown), jnp.max(shown)])

    with broken_contracts_in_one_line(env, tasks):
        low, high = np.asarray(jax.jit(extremes).lower().compile()())
    if low < 0 or high >= space.n:
        raise UsageError(
            f"{name_of(env)} shows {low if low < 0 else high}, which its observation space, Discrete({space.n}), does "
            f"not hold: number the observations from 0 to {space.n - 1}"
        )


def require_tasks(tasks: Any) -> None:
    """Raises UsageError for an object that is no task distribution."""
    if tasks is None:
        return
    if not isinstance(tasks, Tasks):
        raise UsageError(
            f"tasks must be jaxrl_envs.Tasks, got {shown(tasks)}; jaxrl_envs.tasks.single(params) makes them of params"
        )
    if not callable(tasks.sample):
        raise UsageError(f"tasks.sample must be a function, key -> params of one task, got {shown(tasks.sample)}")
    if not callable(tasks.resample) and tasks.resample not in ("never", "episode"):
        raise UsageError(f"tasks.resample must be never, episode or a function, got {shown(tasks.resample)}")
    try:
        require_batches(tasks)
    except ValueError as error:
        raise UsageError(str(error)) from None
