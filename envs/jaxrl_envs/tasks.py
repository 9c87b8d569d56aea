"""Task distributions. A task is the `EnvParams` of an environment; `Tasks` says how and when it is drawn."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.contract import EnvCheckError, converted, is_key

EnvParams = Any  # a pytree whose leaves describe one task


class Tasks(NamedTuple):
    """A distribution over tasks."""

    sample: Callable[[jax.Array], EnvParams]  # key -> EnvParams of one task
    # "never" if a world keeps its task for good, "episode" if each episode draws a new one, or a function (key, task of
    # the episode that ended) -> task of the next, for tasks that change over a lifetime
    resample: Literal["never", "episode"] | Callable[[jax.Array, EnvParams], EnvParams] = "never"
    test: EnvParams | None = None  # leading axis [N], held-out tasks for evaluation; None: draw them from `sample`
    train: EnvParams | None = None  # leading axis [N], all tasks that `sample` draws from, if they are finitely many

    def following(self, key: jax.Array, task: EnvParams) -> EnvParams:
        """The task of the episode after one with `task`, in its dtypes; `key` is not used when a task is kept.

        Raises:
            EnvCheckError: those dtypes cannot hold it.
        """
        if self.resample == "never":
            return task
        after = self.resample(key, task) if callable(self.resample) else self.sample(key)
        return like(task, after, "the task after an episode")

    def in_one_dtype(self) -> "Tasks":
        """These tasks with those of `train` and `test` in the dtypes of `sample`, so that they are played alike.

        Raises:
            EnvCheckError: those dtypes cannot hold them.
        """
        if self.train is None and self.test is None:
            return self
        drawn: Any = jax.eval_shape(self.sample, jax.random.key(0))
        structure: Any = jax.tree.structure(drawn)
        alike = {
            name: like(drawn, batch, f"tasks.{name}", batch=True)
            for name, batch in (("train", self.train), ("test", self.test))
            if structure == jax.tree.structure(batch)  # None is of another
        }
        return self._replace(**alike)

    def time_limit(self) -> int:
        """Steps of the longest episode: the maximum over `train`, `test` and, without `train`, DRAWS draws of `sample`;
        where `resample` is a function, also over the FOLLOWED tasks that come after some of these. Can be called under
        a trace.

        Raises:
            EnvCheckError: the tasks have no `max_steps_in_episode`, or one below 1.
        """
        drawn: list[Any] = []  # a limit that does not depend on the draw is a number under a trace, and nothing is run
        jax.eval_shape(lambda: drawn.append(_limit(self.sample(jax.random.key(0)))))
        run = lambda limits: np.asarray(jax.jit(limits).lower().compile()())  # compiled explicitly, for a trace
        if not isinstance(drawn[0], jax.core.Tracer):
            limits = [drawn[0]]
        else:
            limits = [] if self.train is not None else [run(self._limits_of_draws)]
        if callable(self.resample):
            limits.append(run(self._limits_of_followers))
        limits += [_limit(batch) for batch in (self.train, self.test) if batch is not None]
        known = [limit for limit in limits if not isinstance(limit, jax.core.Tracer)]  # of tasks made under a trace
        found = np.concatenate([np.ravel(np.asarray(limit)) for limit in known or limits])
        if found.min() < 1:
            raise EnvCheckError(f"max_steps_in_episode must be at least 1 in every task, got {found.min():g}")
        return int(found.max())

    def _limits_of_draws(self) -> jax.Array:
        """The time limits of DRAWS tasks."""
        return jax.vmap(lambda key: jnp.asarray(_limit(self.sample(key))))(jax.random.split(jax.random.key(0), DRAWS))

    def _limits_of_followers(self) -> jax.Array:
        """The time limits of tasks that follow each other, [CHAINS, FOLLOWED]."""

        def chain(key: jax.Array) -> jax.Array:
            def one(task: EnvParams, key: jax.Array) -> tuple[EnvParams, Any]:
                after = self.following(key, task)
                return after, _limit(after)

            first = as_arrays(self.sample(key))
            return jax.lax.scan(one, first, jax.random.split(key, FOLLOWED))[1]

        return jax.vmap(chain)(jax.random.split(jax.random.key(1), CHAINS))

    def has_time_limit(self) -> bool:
        """Whether the tasks state one."""
        return hasattr(jax.eval_shape(self.sample, jax.random.key(0)), "max_steps_in_episode")

    def train_batch(self, count: int, key: jax.Array) -> EnvParams:
        """`count` tasks to train on, leading axis [count]: the first of `train`, or draws where that is None."""
        return self._batch(self.train, "training", count, key)

    def test_batch(self, count: int, key: jax.Array) -> EnvParams:
        """`count` tasks for evaluation, leading axis [count]: the first of `test`, or fresh draws."""
        return self._batch(self.test, "test", count, key)

    def _batch(self, tasks: EnvParams | None, kind: str, count: int, key: jax.Array) -> EnvParams:
        if tasks is None:
            return jax.vmap(self.sample)(jax.random.split(key, count))
        available = number_of(tasks)
        if count > available:
            raise ValueError(f"{count} {kind} tasks were asked for and the task distribution holds {available}")
        return jax.tree.map(lambda x: x[:count], tasks)


def replaced(params: Any, **fields: Any) -> Any:
    """EnvParams, a NamedTuple or dataclass, with other values of these fields."""
    return params._replace(**fields) if hasattr(params, "_replace") else dataclasses.replace(params, **fields)


def as_arrays(task: EnvParams) -> EnvParams:
    """A task with all leaves as arrays without weak types."""
    return like(task, task, "the task")


def like(drawn: EnvParams, task: EnvParams, what: str, *, batch: bool = False) -> EnvParams:
    """`task` as arrays in the dtypes of the task `drawn`, or of its shapes, without weak types.

    Args:
        what: the name of `task` in errors.
        batch: whether it has a leading axis.

    Raises:
        EnvCheckError: those dtypes cannot hold it without loss, or it has another structure or other shapes.
    """
    old: Any = jax.tree.structure(drawn)
    new: Any = jax.tree.structure(task)
    if old != new:
        found, wanted = (new, old) if type(task) is type(drawn) else (type(task).__name__, type(drawn).__name__)
        raise EnvCheckError(f"{what} is {found}, it must be {wanted}, as tasks.sample gives it")

    def leaf(path: Any, x: Any, y: Any) -> jax.Array:
        if is_key(x) and is_key(y):
            return y
        name = f"{what}: {jax.tree_util.keystr(path).lstrip('.') or 'it'}"
        try:
            return converted(name, y, None if batch else jnp.shape(x), jnp.result_type(x), exactly=True)
        except ValueError as error:
            raise EnvCheckError(f"{error}, as tasks.sample gives it") from None

    return jax.tree_util.tree_map_with_path(leaf, drawn, task)


DRAWS = 2**14  # tasks whose time limits stand for all, where there is no end of tasks
CHAINS, FOLLOWED = 8, 4096  # and where tasks follow each other, lifetimes and episodes of each


def _limit(task: EnvParams) -> Any:
    if not hasattr(task, "max_steps_in_episode"):
        raise EnvCheckError(f"episodes need a time limit, and {type(task).__name__} has no max_steps_in_episode")
    return task.max_steps_in_episode


def number_of(batch: EnvParams, name: str = "the batch") -> int:
    """N of a batch of tasks, EnvParams with a leading axis [N] on every leaf.

    Raises:
        ValueError: a leaf has no such axis, or a shorter one.
    """
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    shapes = {jax.tree_util.keystr(path, simple=True, separator="."): jnp.shape(leaf) for path, leaf in leaves}
    most = max((shape[0] for shape in shapes.values() if shape), default=0)
    for leaf, shape in shapes.items():
        if shape[:1] != (most,):
            raise ValueError(
                f"every leaf of {name} needs one leading axis of tasks, and {leaf or 'it'} has shape {list(shape)}; "
                "jax.vmap of what makes one task makes such a batch"
            )
    if not most:
        raise ValueError(f"{name} holds no tasks")
    return most


def require_batches(tasks: Any) -> None:
    """Raises ValueError where the training or test tasks of `Tasks` are no batch."""
    for name in ("test", "train"):
        if (batch := getattr(tasks, name, None)) is not None:
            number_of(batch, f"tasks.{name}")


def single(params: EnvParams) -> Tasks:
    """The distribution that always gives `params`: ordinary reinforcement learning on one task."""
    return Tasks(sample=lambda key: params)


def from_batch(
    params: EnvParams, test: EnvParams | None = None, resample: Literal["never", "episode"] = "never"
) -> Tasks:
    """Uniform over a finite set of tasks. `params`, `test`: EnvParams with leading axis [N] on every leaf."""
    count = number_of(params)

    def sample(key: jax.Array) -> EnvParams:
        i = jax.random.randint(key, (), 0, count)
        return jax.tree.map(lambda x: jnp.asarray(x)[i], params)

    return Tasks(sample=sample, resample=resample, test=test, train=params)
