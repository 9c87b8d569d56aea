"""What must hold between PEARL's settings in an environment, and which of them give way to those that the user set."""

from typing import Any

from jaxrl_hier.engine.types import Tasks
from jaxrl_hier.relations import Relation, bounded, held_out, how_many, largest_divisor, next_multiple


def number_of_tasks(config: Any, available: int | None) -> int:
    """Training tasks: those that the settings ask for, else all that are `available`, else 100."""
    return config.train_tasks or available or 100


def pearl_relations(env: Any, tasks: Tasks) -> list[Relation]:
    """All relations, in the order in which they are settled."""
    available, horizon = how_many(tasks.train), tasks.time_limit()
    return [
        bounded("train_tasks", available, "as many as there are to train on"),
        *(
            whole_episodes(name, horizon)
            for name in ("initial_steps", "prior_steps", "posterior_steps", "extra_posterior_steps")
        ),
        Relation(
            counts=(),
            fits=lambda s: s.posterior_steps + s.extra_posterior_steps != 0,
            gives={"posterior_steps": lambda s: horizon, "extra_posterior_steps": lambda s: horizon},
            message=lambda s: (
                "posterior_steps and extra_posterior_steps must not both be 0: no episode would use the belief"
            ),
        ),
        Relation(
            counts=(),
            fits=lambda s: s.prior_steps + s.posterior_steps != 0,
            gives={"prior_steps": lambda s: horizon, "posterior_steps": lambda s: horizon},
            message=lambda s: "prior_steps and posterior_steps must not both be 0: contexts would be empty",
        ),
        *(at_most_all_tasks(name, available) for name in ("meta_batch_size", "tasks_per_iteration")),
        *buffer_relations(available, horizon),
        held_out("eval_tasks", tasks),
        shared_by_devices(available),
    ]


def whole_episodes(name: str, horizon: int) -> Relation:
    """The number of steps called `name` is a multiple of the time limit."""
    return Relation(
        counts=(),
        fits=lambda s: getattr(s, name) % horizon == 0,
        gives={name: lambda s: next_multiple(getattr(s, name), horizon)},
        message=lambda s: f"{name} must be whole episodes of {horizon} steps, got {getattr(s, name)}",
    )


def at_most_all_tasks(name: str, available: int | None) -> Relation:
    """`name` is at most the number of training tasks, which are drawn without replacement."""
    return Relation(
        counts=(name, "train_tasks"),
        fits=lambda s: getattr(s, name) <= number_of_tasks(s, available),
        gives={
            name: lambda s: number_of_tasks(s, available),
            "train_tasks": lambda s: min(getattr(s, name), available or getattr(s, name)),
        },
        message=lambda s: (
            f"{name} must be at most the number of training tasks ({number_of_tasks(s, available)}), got "
            f"{getattr(s, name)}"
        ),
    )


def buffer_relations(available: int | None, horizon: int) -> list[Relation]:
    """The replay buffer has equal parts for all tasks, each of which holds a context and all steps of a visit."""
    tasks = lambda s: number_of_tasks(s, available)
    each = lambda s: s.capacity // tasks(s)
    visit = lambda s: s.prior_steps + s.posterior_steps + s.extra_posterior_steps
    needed = lambda s: max(s.initial_steps, visit(s), s.context_size)
    episodes = lambda steps: max(steps // horizon, 1) * horizon  # whole episodes in so many steps, at least one
    excess = lambda s: max(0, visit(s) - episodes(each(s)))
    fewer = lambda s, most: s.train_tasks if available else largest_divisor(s.capacity, min(tasks(s), most))
    return [
        Relation(
            counts=("capacity", "train_tasks"),
            fits=lambda s: s.capacity % tasks(s) == 0,
            gives={
                "capacity": lambda s: next_multiple(s.capacity, tasks(s)),
                "train_tasks": lambda s: fewer(s, tasks(s)),
            },
            message=lambda s: (
                f"capacity must be a multiple of the number of training tasks ({tasks(s)}), got {s.capacity}"
            ),
        ),
        Relation(
            counts=("capacity", "train_tasks", "context_size"),
            fits=lambda s: each(s) >= needed(s),
            gives={
                "capacity": lambda s: needed(s) * tasks(s),
                "context_size": lambda s: min(s.context_size, max(each(s), 1)),
                "initial_steps": lambda s: min(s.initial_steps, episodes(each(s))),
                "extra_posterior_steps": lambda s: max(0, s.extra_posterior_steps - excess(s)),
                "posterior_steps": lambda s: max(horizon, s.posterior_steps - excess(s)),
                "prior_steps": lambda s: max(0, s.prior_steps - excess(s)),
                "train_tasks": lambda s: fewer(s, max(s.capacity // needed(s), 1)),
            },
            message=lambda s: (
                f"capacity leaves {each(s)} steps to each of {tasks(s)} tasks, and an initial collection, a visit or a "
                f"context has {needed(s)}; use at least {needed(s) * tasks(s)}"
            ),
        ),
    ]


def shared_by_devices(available: int | None) -> Relation:
    """The training tasks are split evenly over the devices."""
    tasks = lambda s: number_of_tasks(s, available)
    return Relation(
        counts=("train_tasks",),
        fits=lambda s: tasks(s) % getattr(s, "devices", 1) == 0,
        gives={
            "train_tasks": lambda s: tasks(s) // s.devices * s.devices or (s.train_tasks if available else s.devices)
        },
        message=lambda s: f"the number of training tasks must be a multiple of devices ({s.devices}), got {tasks(s)}",
    )
