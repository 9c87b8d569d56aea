"""Environments by name: an explicit table, filled by hand, its modules imported on use; and every id of gymnax.

Another package adds its environments by entry points of the group `jaxrl_envs.environments`, a program by `register`.
"my_module:my_factory", an import path, is a name that needs no registration. Each leads to a factory, () -> env or
(env, tasks).
"""

import difflib
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_envs.tasks import Tasks, single


class Entry(NamedTuple):
    """An environment that has a name."""

    factory: Callable[[], Any]  # () -> env, or (env, tasks)
    summary: str


def _entry(module: str, build: Callable[[Any], Any], summary: str) -> Entry:
    """An environment of this package. `build` gets the module, which is imported when the environment is asked for."""
    return Entry(lambda: build(import_module(f"jaxrl_envs.{module}")), summary)


def _pair(env: Any, tasks: Callable[..., Tasks], *args: Any) -> tuple[Any, Tasks]:
    """An environment and the tasks that are made from it."""
    return env, tasks(env, *args)


def _bit_flipping(bits: int) -> Entry:
    build = lambda m: (m.BitFlipping(bits), m.bit_flipping_tasks(bits))
    return _entry("bit_flipping", build, f"{bits} bits to be flipped into a visible pattern (HER, 2017)")


def _bandit(pulls: int, arms: int) -> Entry:
    build = lambda m: (m.Bandit(arms), m.independent_tasks(arms, pulls))
    return _entry("bandits", build, f"{pulls} pulls of {arms} independent arms (RL², 2016)")


def _dependent_bandit(kind: str) -> Entry:
    build = lambda m: (m.Bandit(2), m.dependent_tasks(kind))
    return _entry("bandits", build, f"two dependent arms, {kind} (Wang et al., 2016)")


ENVIRONMENTS: dict[str, Entry] = {
    "navigation2d": _entry(
        "navigation2d",
        lambda m: (m.Navigation2D(), m.navigation_tasks()),
        "a point moves to a hidden goal; the task is the goal (MAML, 2017)",
    ),
    "navigation2d-unnormalised": _entry(
        "navigation2d",
        lambda m: (m.NavigationUnnormalised(), m.navigation_tasks()),
        "navigation2d with actions clipped at 0.1 instead of scaled (pytorch-maml-rl; ANIL, 2020)",
    ),
    "navigation2d-corners": _entry(
        "navigation2d",
        lambda m: (m.NavigationCorners(), m.corner_tasks()),
        "navigation2d with goals in four far corners; the reward is progress (ProMP, 2019)",
    ),
    "navigation2d-sparse": _entry(
        "navigation2d",
        lambda m: (m.NavigationSparse(), m.sparse_tasks()),
        "navigation2d with goals on a half circle and a reward near the goal only (PEARL, 2019)",
    ),
    "point-robot": _entry(
        "point_robot",
        lambda m: (m.PointRobot(), m.point_robot_tasks(m.square_goals())),
        "a point moves to a hidden goal in a square, in 20 steps (PEARL, 2019)",
    ),
    "sparse-point-robot": _entry(
        "point_robot",
        lambda m: (m.SparsePointRobot(), m.point_robot_tasks(m.half_circle_goals())),
        "point-robot with goals on a half circle; only rewards near the goal tell where it is (PEARL, 2019)",
    ),
    "sinusoid": _entry(
        "sinusoid",
        lambda m: (m.Sinusoid(), m.sinusoid_tasks(math.pi)),
        "regression on a few points of a sine wave; the task is the wave (MAML, 2017)",
    ),
    "sinusoid-full-turn": _entry(
        "sinusoid",
        lambda m: (m.Sinusoid(), m.sinusoid_tasks(2 * math.pi)),
        "sinusoid with phases from 0 to 2π (Reptile, 2018)",
    ),
    "four-rooms": _entry(
        "four_rooms",
        lambda m: _pair(m.FourRooms(), m.four_rooms_tasks, [m.G1]),
        "four rooms with hallways; the task is the goal (Sutton, Precup & Singh, 1999)",
    ),
    "four-rooms-option-critic": _entry(
        "four_rooms",
        lambda m: _pair(m.FourRooms("option-critic"), m.four_rooms_tasks, [m.G1]),
        "four rooms with the noise of the option-critic code (Bacon, Harb & Precup, 2017)",
    ),
    "four-rooms-moving-goal": _entry(
        "four_rooms",
        lambda m: _pair(m.FourRooms("option-critic"), m.moving_goal_tasks),
        "four-rooms-option-critic with a goal that moves once, after 1000 episodes",
    ),
    "four-rooms-goals": _entry(
        "four_rooms",
        lambda m: _pair(m.FourRoomsGoals(), m.four_rooms_goal_tasks),
        "four rooms, sparse reward, any cell as visible goal; some goals are held out",
    ),
    "four-rooms-hidden-goal": _entry(
        "four_rooms",
        lambda m: _pair(m.FourRooms(), m.hidden_goal_tasks),
        "four rooms; the task is the goal, which is not seen, and some goals are held out",
    ),
    "four-rooms-hallways": _entry(
        "grid_family",
        lambda m: _pair(m.hallways(), m.grid_family_tasks),
        "four rooms; the task is where the hallways are, and some of 500 members are held out",
    ),
    "four-rooms-icy": _entry(
        "grid_family",
        lambda m: _pair(m.icy_rooms(), m.grid_family_tasks),
        "four rooms; the task is where there is ice, and some of 500 members are held out",
    ),
    "grid-mazes": _entry(
        "grid_family",
        lambda m: _pair(m.mazes(), m.grid_family_tasks),
        "mazes of 4 by 4 cells, of which only the own place is seen; some of 500 are held out",
    ),
    **{f"bit-flipping-{n}": _bit_flipping(n) for n in (5, 8, 15, 25, 50)},
    "point-reach": _entry(
        "point_goals",
        lambda m: _pair(m.PointReach(), m.point_reach_tasks),
        "a point mass reaches a visible goal, sparse reward (after FetchReach, HER, 2017)",
    ),
    "point-push": _entry(
        "point_goals",
        lambda m: _pair(m.PointPush(), m.point_push_tasks),
        "a point mass pushes a disc to a visible goal (after FetchPush, HER, 2017)",
    ),
    "point-maze": _entry(
        "point_tasks",
        lambda m: _pair(m.PointMaze("maze"), m.point_maze_tasks),
        "a point moves to goals anywhere around a wall (after Ant Maze, HIRO, 2018)",
    ),
    "point-maze-test": _entry("point_tasks", lambda m: m.PointMaze("maze"), "point-maze with the far end as only goal"),
    "point-maze-push": _entry(
        "point_tasks",
        lambda m: _pair(m.PointMaze("push"), m.point_maze_tasks),
        "a block in the way must be pushed aside (after Ant Push, HIRO, 2018)",
    ),
    "point-maze-fall": _entry(
        "point_tasks",
        lambda m: _pair(m.PointMaze("fall"), m.point_maze_tasks),
        "a block must be pushed into a chasm to cross it (after Ant Fall, HIRO, 2018)",
    ),
    "point-gather": _entry(
        "point_tasks", lambda m: m.PointGather(), "apples to take and bombs to avoid (after Ant Gather, HIRO, 2018)"
    ),
    "taxi": _entry("taxi", lambda m: m.Taxi(), "take a passenger to their destination (Dietterich, 2000)"),
    "taxi-noisy": _entry("taxi", lambda m: m.Taxi(noise=True), "taxi with noisy moves"),
    "taxi-fickle": _entry(
        "taxi",
        lambda m: m.Taxi(noise=True, fickle=True),
        "taxi with noisy moves and a passenger who may change his destination",
    ),
    "taxi-gymnasium": _entry("taxi", lambda m: m.Taxi(rules="gymnasium"), "taxi with the rules of Gymnasium's Taxi-v4"),
    **{f"bandit-n{n}-k{k}": _bandit(n, k) for n in (10, 100, 500) for k in (5, 10, 50)},
    "bandit-independent": _entry(
        "bandits",
        lambda m: (m.Bandit(2), m.independent_tasks(2, 100)),
        "100 pulls of two independent arms (Wang et al., 2016)",
    ),
    **{f"bandit-{kind}": _dependent_bandit(kind) for kind in ("uniform", "easy", "medium", "hard")},
    "bandit-informative": _entry(
        "bandits",
        lambda m: (m.Bandit(11), m.informative_tasks()),
        "eleven arms, one of which tells where the best is (Wang et al., 2016)",
    ),
    "bandit-restless": _entry(
        "bandits",
        lambda m: (m.RestlessBandit(), m.restless_tasks()),
        "two dependent arms whose probabilities drift (Wang et al., 2016)",
    ),
    "tabular-mdp": _entry(
        "tabular_mdp",
        lambda m: (m.TabularMDP(), m.random_mdp_tasks()),
        "random processes of 10 states and 5 actions (RL², 2016)",
    ),
    "maze-small": _entry(
        "maze",
        lambda m: _pair(m.Maze(3), m.maze_tasks),
        "a maze of 3 by 3 cells, new for each task, seen in part only (RL², 2016)",
    ),
    "maze-large": _entry("maze", lambda m: _pair(m.Maze(5), m.maze_tasks), "maze-small with 5 by 5 cells"),
    "treasure": _entry(
        "treasure",
        lambda m: m.KeyDoorTreasure("small", "picture"),
        "rooms, a key, a door and a far treasure (after FuN, 2017)",
    ),
    "treasure-large": _entry(
        "treasure", lambda m: m.KeyDoorTreasure("large", "picture"), "treasure with nine rooms, two keys and two doors"
    ),
    "treasure-vector": _entry(
        "treasure", lambda m: m.KeyDoorTreasure("small", "vector"), "treasure, observed as a vector"
    ),
    "treasure-large-vector": _entry(
        "treasure", lambda m: m.KeyDoorTreasure("large", "vector"), "treasure-large, observed as a vector"
    ),
    "t-maze": _entry(
        "memory_tasks",
        lambda m: m.TMaze(observation="picture"),
        "a sign at the start of a long corridor tells which way to turn (Bakker, 2001)",
    ),
    "t-maze-vector": _entry("memory_tasks", lambda m: m.TMaze(observation="vector"), "t-maze, observed as a vector"),
    "non-match": _entry(
        "memory_tasks",
        lambda m: m.NonMatch(observation="picture"),
        "of two objects, take the one that was not shown before (after FuN, 2017)",
    ),
    "non-match-vector": _entry(
        "memory_tasks", lambda m: m.NonMatch(observation="vector"), "non-match, observed as a vector"
    ),
    "two-colours": _entry(
        "two_colours",
        lambda m: (m.TwoColours(), m.two_colours_tasks()),
        "one of two colours pays, new ones in every episode, in an order that changes in every step",
    ),
    "harlow": _entry(
        "harlow",
        lambda m: (m.Harlow(), m.harlow_tasks()),
        "two new objects in every episode, one of which pays, for ten choices (Wang et al., 2016; Harlow, 1949)",
    ),
    "water-maze": _entry(
        "water_maze",
        lambda m: _pair(m.WaterMaze("vector"), m.water_maze_tasks),
        "find a hidden platform under water, several times in an episode (after FuN, 2017)",
    ),
    "water-maze-picture": _entry(
        "water_maze",
        lambda m: _pair(m.WaterMaze("picture"), m.water_maze_tasks),
        "water-maze, observed as a picture",
    ),
    "goal-grid": _entry(
        "goal_grid", lambda m: m.GoalGrid(), "from any cell of a grid to any other, both seen (Kaelbling, 1993)"
    ),
    "grid-navigation": _entry(
        "grid_navigation",
        lambda m: (m.GridNavigation(), m.grid_navigation_tasks()),
        "5 by 5 cells, one of which pays; the task is that cell, which is not seen (VariBAD, 2020)",
    ),
    "landmarks": _entry(
        "controller_tasks",
        lambda m: (m.Landmarks(), m.landmarks_tasks()),
        "a point moves to a far corner past landmarks, in small steps (Sutton, Precup & Singh, 1999)",
    ),
    "moving-mass": _entry(
        "controller_tasks", lambda m: m.MovingMass(), "bring a mass from rest to rest (Sutton, Precup & Singh, 1999)"
    ),
    "parr-maze": _entry(
        "parr_maze", lambda m: m.ParrMaze(), "hallways and intersections with obstacles (Parr & Russell, 1997)"
    ),
    "two-step": _entry(
        "tabular_mdp", lambda m: m.TwoStep(), "a choice, a common or rare transition, a reward (Wang et al., 2016)"
    ),
}


def _xland(name: str) -> Any:
    from jaxrl_envs.xland import XLand, hidden_objects, xland_tasks

    env = XLand(name)
    return (env, xland_tasks(env, hidden_objects(env))) if name.startswith("XLand") else env


def _atari(name: str) -> Any:
    from jaxrl_envs.atari import Atari

    game = name.removeprefix("atari-")
    return Atari(game.removesuffix("-pixels"), "pixels" if game.endswith("-pixels") else "objects")


def _adapted(module: str, factory: str) -> Callable[[str], Any]:
    """The environments of a package behind an adapter, "package:id"."""
    return lambda name: getattr(import_module(f"jaxrl_envs.adapters.{module}"), factory)(name.partition(":")[2])


# ids of other libraries, by how they begin
FAMILIES: dict[str, Callable[[str], Any]] = {
    "XLand-MiniGrid-": _xland,
    "MiniGrid-": _xland,
    "atari-": _atari,
    "brax:": _adapted("robots", "brax"),
    "craftax:": _adapted("craftax", "Craftax"),
    "jumanji:": _adapted("jumanji", "Jumanji"),
    "mjx:": _adapted("locomotion", "mjx"),
    "mujoco:": _adapted("locomotion", "mujoco"),
    "navix:": _adapted("navix", "Navix"),
    "pgx:": _adapted("pgx", "Pgx"),
    "playground:": _adapted("robots", "playground"),
}


GROUP = "jaxrl_envs.environments"  # entry points of other packages: name -> factory


def register(name: str, factory: Callable[[], Any], summary: str = "") -> None:
    """Make an environment known by `name` to everything that takes names, in this process.

    Args:
        factory: () -> env, or () -> (env, tasks), called whenever the environment is asked for by its name.
        summary: a line for `jaxrl-hier list`.

    Raises:
        ValueError: the name is taken or contains a colon, or `factory` is not a function.
    """
    if not callable(factory) or (hasattr(factory, "step_env") and not isinstance(factory, type)):
        raise ValueError(f"{name} needs a function that makes the environment, such as lambda: MyEnv()")
    if ":" in name or not name:
        raise ValueError(f"an environment's name must not be empty or contain a colon, got {name!r}")
    if name in ENVIRONMENTS and ENVIRONMENTS[name].factory is not factory:
        raise ValueError(f"there is an environment called {name} already; choose another name")
    ENVIRONMENTS[name] = Entry(factory, summary)


def summaries() -> dict[str, str]:
    """One line for each environment that has a name, those of other packages last."""
    ours = {name: entry.summary for name, entry in ENVIRONMENTS.items()}
    return ours | {name: f"from {point.dist.name if point.dist else point.value}" for name, point in _others().items()}


def names() -> list[str]:
    """The names of this package and of those that registered theirs. `make` also takes the ids of gymnax,
    XLand-MiniGrid and jaxtari, and import paths."""
    return list(summaries())


def _others() -> dict[str, metadata.EntryPoint]:
    """Entry points of other packages, without those whose names are taken; imports nothing."""
    return {point.name: point for point in metadata.entry_points(group=GROUP) if point.name not in ENVIRONMENTS}


def make(name: str) -> tuple[Any, Tasks]:
    """The environment called `name` and its task distribution.

    An id of gymnax ("CartPole-v1") gives its environment with the default params as the only task. An id of
    XLand-MiniGrid ("XLand-MiniGrid-R1-9x9", "MiniGrid-DoorKey-6x6") needs that package; the tasks of an XLand are those
    of `xland.hidden_objects`. Games of jaxtari are "atari-montezumarevenge", observed as objects, and
    "atari-montezumarevenge-pixels". Ids of brax, Craftax, Jumanji, MuJoCo, MJX, NAVIX, Pgx and MuJoCo Playground follow
    a prefix, "brax:ant", see `adapters`. An import path ("my_module:my_factory") names a factory, a class or an
    environment; the working directory is searched, too.

    Raises:
        ValueError: no such environment; the message has the closest names.
    """
    if name in ENVIRONMENTS:
        return _with_tasks(name, ENVIRONMENTS[name].factory)
    if point := _others().get(name):
        return _with_tasks(name, point.load())
    for prefix, build in FAMILIES.items():
        if name.startswith(prefix):
            return _with_tasks(name, partial(build, name))
    import gymnax

    if name in gymnax.registered_envs:
        try:
            env, params = gymnax.make(name)
        except Exception as error:  # such as of one that downloads its data
            text = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"gymnax cannot make {name!r}: {text}") from None
        return env, single(params)
    library = re.split(r"[^a-z_]", name.lower())[0]
    if library in HINTS and (":" not in name or library == "gymnasium"):
        raise ValueError(f"unknown environment {name!r}: {HINTS[library]}")
    if ":" in name and library not in ELSEWHERE:
        return _with_tasks(name, imported(name))
    known = [*names(), *gymnax.registered_envs]
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=0.4)
    if library in ELSEWHERE or not near:
        why = f"{library} is not supported" if library in ELSEWHERE else "no name is close to it"
        raise ValueError(f"unknown environment {name!r}: {why}. Environments are {WHAT_THERE_IS}")
    near = [k for k in known if k.lower() in near]
    raise ValueError(f"unknown environment {name!r}; nearest: {', '.join(near)} (`jaxrl-hier list` shows all)")


def is_import_path(name: str) -> bool:
    """Whether the name of an environment makes Python import a module that it names, and so runs code:
    "my_module:my_factory", "gymnasium:my_module:Id-v0". The ids of a package behind an adapter do not."""
    family = any(name.startswith(prefix) for prefix in FAMILIES)
    return not family and ":" in name.removeprefix("gymnasium:")


def imported(path: str) -> Any:
    """The object that an import path, "package.module:name", names; the working directory is searched, too.

    Raises:
        ValueError: no such module, or no such name in it. Errors that the module itself raises are passed on.
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
            raise ValueError(f"{path}: there is no module {error.name}, nor in {here}") from None
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
    """The environment and tasks that a factory makes; instead of a factory, an environment or such a pair will do. The
    only task of an environment without tasks is its `default_params`."""
    is_env = hasattr(factory, "step_env") or hasattr(factory, "step")
    made = factory() if isinstance(factory, type) or (callable(factory) and not is_env) else factory
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Tasks):
        return made
    if not hasattr(made, "default_params"):
        raise ValueError(
            f"{name} must make an environment, or a pair of one and its Tasks; it makes {type(made).__name__}"
        )
    return made, single(made.default_params)


XLAND = "ids of XLand-MiniGrid are XLand-MiniGrid-… and MiniGrid-… (pip install 'jaxrl-hier[xland]')"
EXAMPLES = {  # of the packages behind an adapter
    "brax": "brax:halfcheetah",
    "craftax": "craftax:Craftax-Symbolic-v1",
    "jumanji": "jumanji:Game2048-v1",
    "mjx": "mjx:HalfCheetah-v5",
    "mujoco": "mujoco:HalfCheetah-v5",
    "navix": "navix:Navix-Empty-5x5-v0",
    "pgx": "pgx:tic_tac_toe",
    "playground": "playground:CartpoleBalance",
}
HINTS = {  # for names that begin so and are no id
    "xland": XLAND,
    "minigrid": XLAND,
    "atari": "games are called atari-…, such as atari-pong (pip install 'jaxrl-hier[atari]')",
    "gymnasium": "Gymnasium's run on the host: jaxrl_hier.train and jaxrl_hier.make take them",
    **{
        name: f"ids of {name} are {name}:…, such as {e} (pip install 'jaxrl-hier[{name}]')"
        for name, e in EXAMPLES.items()
    },
}
ELSEWHERE = ("dm_control", "kinetix")  # libraries whose environments we cannot run
WHAT_THERE_IS = (
    "those of `jaxrl-hier list`, gymnax's ids such as CartPole-v1, XLand-MiniGrid-… and MiniGrid-… (extra xland), "
    f"atari-… (extra atari), {', '.join(f'{name}:…' for name in EXAMPLES)} (extras of these names), "
    "gymnasium:… (package gymnasium), and your own by module:factory"
)
