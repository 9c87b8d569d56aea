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


def _bandit(arms: int, pulls: int) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.bandits import Bandit, independent_tasks

        return Bandit(arms), independent_tasks(arms, pulls)

    return build


def _bandit_dependent(kind: Any) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.bandits import Bandit, dependent_tasks

        return Bandit(2), dependent_tasks(kind)

    return build


def _bandit_informative() -> tuple[Any, Tasks]:
    from jaxrl_envs.bandits import Bandit, informative_tasks

    return Bandit(11), informative_tasks()


def _bandit_restless() -> tuple[Any, Tasks]:
    from jaxrl_envs.bandits import RestlessBandit, restless_tasks

    return RestlessBandit(), restless_tasks()


def _tabular_mdp() -> tuple[Any, Tasks]:
    from jaxrl_envs.tabular_mdp import TabularMDP, random_mdp_tasks

    return TabularMDP(), random_mdp_tasks()


def _two_step() -> tuple[Any, Tasks]:
    from jaxrl_envs.tabular_mdp import TwoStep

    env = TwoStep()
    return env, single(env.default_params)


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
    **{
        f"bandit-n{n}-k{k}": (_bandit(k, n), f"{n} pulls of {k} independent arms (RL², 2016)")
        for n in (10, 100, 500)
        for k in (5, 10, 50)
    },
    "bandit-independent": (_bandit(2, 100), "100 pulls of two independent arms (Wang et al., 2016)"),
    **{
        f"bandit-{kind}": (_bandit_dependent(kind), f"two dependent arms, {kind} (Wang et al., 2016)")
        for kind in ("uniform", "easy", "medium", "hard")
    },
    "bandit-informative": (_bandit_informative, "eleven arms, one tells where the best is (Wang et al., 2016)"),
    "bandit-restless": (_bandit_restless, "two dependent arms that drift (Wang et al., 2016)"),
    "tabular-mdp": (_tabular_mdp, "random processes of 10 states and 5 actions (RL², 2016)"),
    "two-step": (_two_step, "a choice, a common or rare transition, a reward (Wang et al., 2016)"),
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
