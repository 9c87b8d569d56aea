"""Environments by name: ours, those that others register, and every id that gymnax itself knows.

A package makes its environments known to every command by entry points of the group `jaxrl_envs.environments`, a
program by `register`, and a file by its import path: "my_module:my_factory" is a name that needs no registration. Each
leads to a factory, () -> env or (env, tasks).
"""

import difflib
import math
import re
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from jaxrl_envs.tasks import Tasks, single


def _navigation2d() -> tuple[Any, Tasks]:
    from jaxrl_envs.navigation2d import Navigation2D, navigation_tasks

    return Navigation2D(), navigation_tasks()


def _navigation2d_unnormalised() -> tuple[Any, Tasks]:
    from jaxrl_envs.navigation2d import NavigationUnnormalised, navigation_tasks

    return NavigationUnnormalised(), navigation_tasks()


def _navigation2d_corners() -> tuple[Any, Tasks]:
    from jaxrl_envs.navigation2d import NavigationCorners, corner_tasks

    return NavigationCorners(), corner_tasks()


def _navigation2d_sparse() -> tuple[Any, Tasks]:
    from jaxrl_envs.navigation2d import NavigationSparse, sparse_tasks

    return NavigationSparse(), sparse_tasks()


def _point_robot() -> tuple[Any, Tasks]:
    from jaxrl_envs.point_robot import PointRobot, point_robot_tasks, square_goals

    return PointRobot(), point_robot_tasks(square_goals())


def _sparse_point_robot() -> tuple[Any, Tasks]:
    from jaxrl_envs.point_robot import SparsePointRobot, half_circle_goals, point_robot_tasks

    return SparsePointRobot(), point_robot_tasks(half_circle_goals())


def _sinusoid(phases: float) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.sinusoid import Sinusoid, sinusoid_tasks

        return Sinusoid(), sinusoid_tasks(phases)

    return build


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


def _four_rooms_goals() -> tuple[Any, Tasks]:
    from jaxrl_envs.four_rooms import FourRoomsGoals, four_rooms_goal_tasks

    env = FourRoomsGoals()
    return env, four_rooms_goal_tasks(env)


def _point_reach() -> tuple[Any, Tasks]:
    from jaxrl_envs.point_goals import PointReach, point_reach_tasks

    env = PointReach()
    return env, point_reach_tasks(env)


def _point_push() -> tuple[Any, Tasks]:
    from jaxrl_envs.point_goals import PointPush, point_push_tasks

    env = PointPush()
    return env, point_push_tasks(env)


def _point_maze(kind: Any) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.point_tasks import PointMaze, point_maze_tasks

        env = PointMaze(kind)
        return env, point_maze_tasks(env)

    return build


def _point_maze_test() -> tuple[Any, Tasks]:
    from jaxrl_envs.point_tasks import PointMaze

    env = PointMaze("maze")
    return env, single(env.default_params)


def _point_gather() -> tuple[Any, Tasks]:
    from jaxrl_envs.point_tasks import PointGather

    env = PointGather()
    return env, single(env.default_params)


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


def _bit_flipping(bits: int) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.bit_flipping import BitFlipping, bit_flipping_tasks

        return BitFlipping(bits), bit_flipping_tasks(bits)

    return build


def _maze(cells: int) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.maze import Maze, maze_tasks

        env = Maze(cells)
        return env, maze_tasks(env)

    return build


def _treasure(map: str, observation: Any) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.treasure import KeyDoorTreasure

        env = KeyDoorTreasure(map, observation)
        return env, single(env.default_params)

    return build


def _t_maze(observation: Any) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.memory_tasks import TMaze

        env = TMaze(observation=observation)
        return env, single(env.default_params)

    return build


def _non_match(observation: Any) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.memory_tasks import NonMatch

        env = NonMatch(observation=observation)
        return env, single(env.default_params)

    return build


def _water_maze(observation: Any) -> Callable[[], tuple[Any, Tasks]]:
    def build() -> tuple[Any, Tasks]:
        from jaxrl_envs.water_maze import WaterMaze, water_maze_tasks

        env = WaterMaze(observation)
        return env, water_maze_tasks(env)

    return build


def _xland(name: str) -> tuple[Any, Tasks]:
    from jaxrl_envs.xland import XLand, hidden_objects, xland_tasks

    env = XLand(name)
    tasks = xland_tasks(env, hidden_objects(env)) if name.startswith("XLand") else single(env.default_params)
    return env, tasks


def _atari(name: str) -> tuple[Any, Tasks]:
    from jaxrl_envs.atari import Atari

    game = name.removeprefix("atari-")
    env = Atari(game.removesuffix("-pixels"), "pixels" if game.endswith("-pixels") else "objects")
    return env, single(env.default_params)


ENVIRONMENTS: dict[str, tuple[Callable[[], tuple[Any, Tasks]], str]] = {
    "navigation2d": (_navigation2d, "a point moves to a hidden goal; the task is the goal (MAML, 2017)"),
    "navigation2d-unnormalised": (
        _navigation2d_unnormalised,
        "the same with actions clipped at 0.1 instead of scaled (pytorch-maml-rl; ANIL, 2020)",
    ),
    "navigation2d-corners": (_navigation2d_corners, "four far corners, rewards progress only (ProMP, 2019)"),
    "navigation2d-sparse": (_navigation2d_sparse, "goals on a half circle, rewards nearness only (PEARL, 2019)"),
    "point-robot": (_point_robot, "a point moves to a hidden goal in a square, in 20 steps (PEARL, 2019)"),
    "sparse-point-robot": (
        _sparse_point_robot,
        "the same on a half circle; only what is near the goal tells where it is (PEARL, 2019)",
    ),
    "sinusoid": (_sinusoid(math.pi), "regression on a few points of a sine wave; the task is the wave (MAML, 2017)"),
    "sinusoid-full-turn": (_sinusoid(2 * math.pi), "the same with phases from the full turn (Reptile, 2018)"),
    "four-rooms": (_four_rooms, "four rooms with hallways; the task is the goal (Sutton, Precup & Singh, 1999)"),
    "four-rooms-option-critic": (
        _four_rooms_option_critic,
        "four rooms with the option-critic code's noise (Bacon, Harb & Precup, 2017)",
    ),
    "four-rooms-moving-goal": (
        _four_rooms_moving_goal,
        "the same, with a goal that moves for good after 1000 episodes",
    ),
    "four-rooms-goals": (_four_rooms_goals, "four rooms, sparse reward, any cell as visible goal; some are held out"),
    **{
        f"bit-flipping-{n}": (_bit_flipping(n), f"{n} bits to be flipped into a visible pattern (HER, 2017)")
        for n in (5, 8, 15, 25, 50)
    },
    "point-reach": (_point_reach, "a point mass reaches a visible goal, sparse reward (after FetchReach, HER, 2017)"),
    "point-push": (_point_push, "a point mass pushes a disc to a visible goal (after FetchPush, HER, 2017)"),
    "point-maze": (_point_maze("maze"), "a point goes anywhere around a wall (after Ant Maze, HIRO, 2018)"),
    "point-maze-test": (_point_maze_test, "the same, to the far end always"),
    "point-maze-push": (_point_maze("push"), "a block in the way must be pushed aside (after Ant Push, HIRO, 2018)"),
    "point-maze-fall": (_point_maze("fall"), "a block pushed into a chasm is the bridge (after Ant Fall, HIRO, 2018)"),
    "point-gather": (_point_gather, "apples to take and bombs to avoid (after Ant Gather, HIRO, 2018)"),
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
    "maze-small": (_maze(3), "a maze of 3 by 3 cells, new for each task, seen in part only (RL², 2016)"),
    "maze-large": (_maze(5), "the same with 5 by 5 cells"),
    "treasure": (_treasure("small", "picture"), "rooms, a key, a door and a far treasure (after FuN, 2017)"),
    "treasure-large": (_treasure("large", "picture"), "the same with nine rooms, two keys and two doors"),
    "treasure-vector": (_treasure("small", "vector"), "the rooms of treasure, told as a vector"),
    "treasure-large-vector": (_treasure("large", "vector"), "the rooms of treasure-large, told as a vector"),
    "t-maze": (_t_maze("picture"), "a sign at the start of a long corridor tells which way to turn (Bakker, 2001)"),
    "t-maze-vector": (_t_maze("vector"), "the same, told as a vector"),
    "non-match": (_non_match("picture"), "of two objects take the one that was not shown before (after FuN, 2017)"),
    "non-match-vector": (_non_match("vector"), "the same, told as a vector"),
    "water-maze": (_water_maze("vector"), "find a platform under water, again and again (after FuN, 2017)"),
    "water-maze-picture": (_water_maze("picture"), "the same, as a picture"),
    "two-step": (_two_step, "a choice, a common or rare transition, a reward (Wang et al., 2016)"),
}


GROUP = "jaxrl_envs.environments"  # entry points of other packages: name -> factory


def register(name: str, factory: Callable[[], Any], summary: str = "") -> None:
    """Make an environment known by `name` to everything that takes names, in this process.

    Args:
        factory: () -> env, or () -> (env, tasks), called whenever the environment is asked for by its name.
        summary: a line for `jaxrl-hier list`.

    Raises:
        ValueError: a name that is taken or holds a colon, or no function.
    """
    if not callable(factory) or (hasattr(factory, "step_env") and not isinstance(factory, type)):
        raise ValueError(f"{name} needs a function that makes the environment, such as lambda: MyEnv()")
    if ":" in name or not name:
        raise ValueError(f"the name of an environment has no colon, got {name!r}")
    if name in ENVIRONMENTS and ENVIRONMENTS[name][0] is not factory:
        raise ValueError(f"there is an environment called {name} already; choose another name")
    ENVIRONMENTS[name] = factory, summary


def summaries() -> dict[str, str]:
    """A line on every environment that has a name here, those of other packages last."""
    told = {name: summary for name, (_, summary) in ENVIRONMENTS.items()}
    return told | {name: f"from {point.dist.name if point.dist else point.value}" for name, point in _others().items()}


def names() -> list[str]:
    """This package's own names, and those that others registered. `make` takes the ids of gymnax, XLand-MiniGrid and
    jaxtari too, and import paths."""
    return list(summaries())


def _others() -> dict[str, metadata.EntryPoint]:
    """Entry points whose names are not taken; nothing is imported."""
    return {point.name: point for point in metadata.entry_points(group=GROUP) if point.name not in ENVIRONMENTS}


def make(name: str) -> tuple[Any, Tasks]:
    """The environment called `name` and its task distribution.

    An id of gymnax ("CartPole-v1") gives gymnax's environment with its default params as the only task; one of
    XLand-MiniGrid ("XLand-MiniGrid-R1-9x9", "MiniGrid-DoorKey-6x6") needs that package, and tasks of an XLand are
    those of `xland.hidden_objects`; a game of jaxtari is "atari-montezumarevenge", as it tells of objects, or
    "atari-montezumarevenge-pixels". An import path ("my_module:my_factory") leads to a factory, a class or an
    environment itself, looked for in the working directory too. Raises ValueError, with the nearest names, when none
    knows the name.
    """
    if name in ENVIRONMENTS:
        return _with_tasks(name, ENVIRONMENTS[name][0])
    if point := _others().get(name):
        return _with_tasks(name, point.load())
    if name.startswith(("XLand-MiniGrid-", "MiniGrid-")):
        return _xland(name)
    if name.startswith("atari-"):
        return _atari(name)
    import gymnax

    if name in gymnax.registered_envs:
        try:
            env, params = gymnax.make(name)
        except Exception as error:  # such as of one that downloads its data
            text = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"gymnax cannot make {name!r}: {text}") from None
        return env, single(params)
    library = re.split(r"[^a-z_]", name.lower())[0]
    if library in BEGINNINGS and (":" not in name or library == "gymnasium"):
        raise ValueError(f"unknown environment {name!r}: {BEGINNINGS[library]}")
    if ":" in name and library not in ELSEWHERE:
        return _with_tasks(name, imported(name))
    known = [*names(), *gymnax.registered_envs]
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=0.4)
    if library in ELSEWHERE or not near:
        why = f"{library} is not among those that can be played" if library in ELSEWHERE else "no name is near"
        raise ValueError(f"unknown environment {name!r}: {why}. There are {FAMILIES}")
    near = [k for k in known if k.lower() in near]
    raise ValueError(f"unknown environment {name!r}; nearest: {', '.join(near)} (`jaxrl-hier list` shows all)")


def imported(path: str) -> Any:
    """What an import path leads to, "package.module:name"; the working directory is looked in as well.

    Raises:
        ValueError: no such module, or none of this name in it. What the module itself raises is passed on.
    """
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or not attribute:
        raise ValueError(f"an import path is written module:name, got {path!r}")
    if (here := str(Path.cwd())) not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ValueError(f"{path}: there is no module {error.name}, in {here} neither") from None
        raise
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name in vars(found) if not name.startswith("_")]
            near = difflib.get_close_matches(part, public, n=3, cutoff=0.4)
            raise ValueError(f"{module_name} has no {part}" + (f"; nearest: {', '.join(near)}" if near else ""))
        found = getattr(found, part)
    return found


def _with_tasks(name: str, factory: Any) -> tuple[Any, Tasks]:
    """What a factory makes, or the environment or the pair that stands in its place; the tasks of an environment that
    comes alone are its `default_params`."""
    is_env = hasattr(factory, "step_env") or hasattr(factory, "step")
    made = factory() if isinstance(factory, type) or (callable(factory) and not is_env) else factory
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Tasks):
        return made
    if not hasattr(made, "default_params"):
        raise ValueError(
            f"{name} must give an environment, or a pair of one and its Tasks; it gives {type(made).__name__}"
        )
    return made, single(made.default_params)


XLAND = "ids of XLand-MiniGrid are XLand-MiniGrid-… and MiniGrid-… (pip install 'jaxrl-hier[xland]')"
BEGINNINGS = {  # of ids that nobody has
    "xland": XLAND,
    "minigrid": XLAND,
    "atari": "games are called atari-…, such as atari-pong (pip install 'jaxrl-hier[atari]')",
    "gymnasium": "what is Gymnasium's is not compiled; jaxrl_hier.train takes it, with learners from replay",
}
ELSEWHERE = (
    "brax",
    "craftax",
    "dm_control",
    "jumanji",
    "kinetix",
    "mjx",
    "mujoco",
    "mujoco_playground",
    "navix",
    "pgx",
)
FAMILIES = (
    "those of `jaxrl-hier list`, gymnax's ids such as CartPole-v1, XLand-MiniGrid-… and MiniGrid-… (extra xland), "
    "atari-… (extra atari), for learners from replay gymnasium:… (package gymnasium; robots: extra robotics), and your "
    "own by module:factory"
)
