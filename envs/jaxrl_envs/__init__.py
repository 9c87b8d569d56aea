"""Jittable environments and task distributions for hierarchical and meta reinforcement learning.

Every environment follows the gymnax 1.x contract (`reset_env`, `step_env`, `is_truncated`, spaces), and its task is
data: a leaf of `EnvParams`, so that thousands of tasks are one `jax.vmap` over the params. A task is redrawn by
`Tasks` and nowhere else.

    import jax, jaxrl_envs
    env, tasks = jaxrl_envs.make("navigation2d")
    params = tasks.sample(jax.random.key(0))
    obs, state = env.reset(jax.random.key(1), params)

The package imports nothing of `jaxrl_hier`, and names load on first use: importing gymnax takes seconds.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "make": "registry",
    "names": "registry",
    "register": "registry",
    "Tasks": "tasks",
    "check_env": "check",
    "check_goal_env": "goals",
    "is_goal_env": "goals",
    "to_gymnasium": "gymnasium_env",
    "FourRooms": "four_rooms",
    "FourRoomsGoals": "four_rooms",
    "FourRoomsParams": "four_rooms",
    "Navigation2D": "navigation2d",
    "NavigationParams": "navigation2d",
    "PointGather": "point_tasks",
    "PointMaze": "point_tasks",
    "point_maze_tasks": "point_tasks",
    "PointPush": "point_goals",
    "PointReach": "point_goals",
    "PointRobot": "point_robot",
    "PushParams": "point_goals",
    "ReachParams": "point_goals",
    "Sinusoid": "sinusoid",
    "SinusoidParams": "sinusoid",
    "SparsePointRobot": "point_robot",
    "Taxi": "taxi",
    "TaxiParams": "taxi",
    "BitFlipping": "bit_flipping",
    "BitFlippingParams": "bit_flipping",
    "bit_flipping_tasks": "bit_flipping",
    "four_rooms_goal_tasks": "four_rooms",
    "four_rooms_tasks": "four_rooms",
    "moving_goal_tasks": "four_rooms",
    "point_push_tasks": "point_goals",
    "point_reach_tasks": "point_goals",
    "Bandit": "bandits",
    "BanditParams": "bandits",
    "RestlessBandit": "bandits",
    "RestlessParams": "bandits",
    "dependent_tasks": "bandits",
    "independent_tasks": "bandits",
    "informative_tasks": "bandits",
    "restless_tasks": "bandits",
    "TabularMDP": "tabular_mdp",
    "TabularParams": "tabular_mdp",
    "TwoStep": "tabular_mdp",
    "TwoStepParams": "tabular_mdp",
    "random_mdp_tasks": "tabular_mdp",
    "Maze": "maze",
    "MazeParams": "maze",
    "maze_tasks": "maze",
    "KeyDoorTreasure": "treasure",
    "TreasureParams": "treasure",
    "NonMatch": "memory_tasks",
    "NonMatchParams": "memory_tasks",
    "TMaze": "memory_tasks",
    "TMazeParams": "memory_tasks",
    "WaterMaze": "water_maze",
    "WaterParams": "water_maze",
    "water_maze_tasks": "water_maze",
    "XLand": "xland",
    "XLandParams": "xland",
    "hidden_objects": "xland",
    "xland_tasks": "xland",
    "Trial": "trial",
    "TrialParams": "trial",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f"jaxrl_envs.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'jaxrl_envs' has no attribute {name!r}; it has {', '.join(_EXPORTS)}")


def __dir__() -> list[str]:
    return sorted(_EXPORTS)
