"""Environments by name: ours, and every id that gymnax itself knows."""

import difflib
from collections.abc import Callable
from typing import Any

from jaxrl_envs.tasks import Tasks, single


def _navigation2d() -> tuple[Any, Tasks]:
    from jaxrl_envs.navigation2d import Navigation2D, navigation_tasks

    return Navigation2D(), navigation_tasks()


def _four_rooms() -> tuple[Any, Tasks]:
    from jaxrl_envs.four_rooms import G1, FourRooms, four_rooms_tasks

    env = FourRooms()
    return env, four_rooms_tasks(env, [G1])


def _four_rooms_option_critic() -> tuple[Any, Tasks]:
    from jaxrl_envs.four_rooms import G1, FourRooms, four_rooms_tasks

    env = FourRooms("option-critic")
    return env, four_rooms_tasks(env, [G1])


def _four_rooms_moving_goal() -> tuple[Any, Tasks]:
    from jaxrl_envs.four_rooms import FourRooms, moving_goal_tasks

    env = FourRooms("option-critic")
    return env, moving_goal_tasks(env)


def _taxi(**rules: Any) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.taxi import Taxi

        env = Taxi(**rules)
        return env, single(env.default_params)

    return build


ENVIRONMENTS: dict[str, tuple[Callable[[], tuple[Any, Tasks]], str]] = {
    "navigation2d": (_navigation2d, "a point moves to a hidden goal; the task is the goal (MAML, 2017)"),
    "four-rooms": (_four_rooms, "four rooms with hallways; the task is the goal (Sutton, Precup & Singh, 1999)"),
    "four-rooms-option-critic": (
        _four_rooms_option_critic,
        "four rooms with the option-critic code's noise (Bacon, Harb & Precup, 2017)",
    ),
    "four-rooms-moving-goal": (
        _four_rooms_moving_goal,
        "the same, with a goal that moves for good after 1000 episodes",
    ),
    "taxi": (_taxi(), "fetch a passenger and bring him to his destination (Dietterich, 2000)"),
    "taxi-noisy": (_taxi(noise=True), "the same, with moves that go astray"),
    "taxi-fickle": (_taxi(noise=True, fickle=True), "the same, with a passenger who changes his mind"),
    "taxi-gymnasium": (_taxi(rules="gymnasium"), "the taxi with the rules of gymnasium's Taxi-v4"),
}


def names() -> list[str]:
    """The names of this package's own environments. `make` takes gymnax's ids too."""
    return list(ENVIRONMENTS)


def make(name: str) -> tuple[Any, Tasks]:
    """The environment called `name` and its task distribution.

    An id of gymnax ("CartPole-v1") gives gymnax's environment with its default params as the only task.
    Raises ValueError, with the nearest names, when neither knows the name.
    """
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name][0]()
    import gymnax

    if name in gymnax.registered_envs:
        env, params = gymnax.make(name)
        return env, single(params)
    known = [*ENVIRONMENTS, *gymnax.registered_envs]
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=0.4)
    near = [k for k in known if k.lower() in near] or list(ENVIRONMENTS)
    raise ValueError(f"unknown environment {name!r}; nearest: {', '.join(near)} (`jaxrl-hier list` shows all)")
