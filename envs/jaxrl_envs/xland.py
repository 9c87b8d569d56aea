"""XLand-MiniGrid's environments (Nikulin et al., NeurIPS 2024), unchanged, behind the contract of this package.

    pip install 'jaxrl-hier[xland]'

    env = XLand("XLand-MiniGrid-R1-9x9")
    tasks = xland_tasks(env, hidden_objects(env))          # or xminigrid.load_benchmark("trivial-21k"), which downloads

A task is a ruleset: the objects in the rooms, rules for objects that meet, and the goal, all hidden from the agent.
Each reset draws the positions of objects and agent. Rules, goals and observations are the package's own; the contract
differs: `step_env` never resets, and the time limit is `is_truncated`, separate from the goal.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.tasks import Tasks


@struct.dataclass
class XLandState(environment.EnvState):
    """The state of the environment inside."""

    inner: Any  # xminigrid's State
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class XLandParams(environment.EnvParams):
    """The task: the params of the environment inside, of which the ruleset is data."""

    inner: Any = None  # xminigrid's EnvParams
    max_steps_in_episode: int = 243


class XLand(environment.Environment[XLandState, XLandParams]):
    """Action: 0 forward, 1 turn right, 2 turn left, 3 pick up, 4 put down, 5 toggle. Observation: [view, view, 2]
    uint8, tile and colour of the squares in front of the agent. Reward: 1 − 0.9 t / limit for the goal in step t.

    Args:
        name: of the environment in XLand-MiniGrid.
        settings: those of `xminigrid.make`, such as view_size or max_steps.

    Raises:
        ValueError: XLand-MiniGrid is not installed, or knows no such name.
    """

    costly_reset = True  # a world is laid out anew

    def __init__(self, name: str = "XLand-MiniGrid-R1-9x9", **settings: Any):
        super().__init__()
        xminigrid = _xminigrid()
        if name not in xminigrid.registered_environments():
            known = ", ".join(xminigrid.registered_environments())
            raise ValueError(f"XLand-MiniGrid has no environment {name!r}; it has {known}")
        self.inner, self._params = xminigrid.make(name, **settings)
        self._name = name

    @property
    def name(self) -> str:
        """As XLand-MiniGrid calls it."""
        return self._name

    @property
    def default_params(self) -> XLandParams:
        """The environment's own; for XLand a ruleset without objects or a goal, see `xland_tasks`."""
        return XLandParams(inner=self._params, max_steps_in_episode=self._params.max_steps)

    def reset_env(self, key: jax.Array, params: XLandParams) -> tuple[jax.Array, XLandState]:
        # its state holds a key, for resets that are not used here: plain words stack and compare like any array
        timestep = self.inner.reset(params.inner, jax.random.key_data(key))
        return timestep.observation, _state(timestep)

    def step_env(
        self, key: jax.Array, state: XLandState, action: jax.Array, params: XLandParams
    ) -> tuple[jax.Array, XLandState, jax.Array, jax.Array, dict[str, Any]]:
        timestep = self.inner.step(params.inner, _timestep(state), action)
        terminated = timestep.last() & (timestep.discount == 0)
        return timestep.observation, _state(timestep), timestep.reward, terminated, {}

    def is_terminated(self, state: XLandState, params: XLandParams) -> jax.Array:
        raise NotImplementedError("whether XLand-MiniGrid's goal is reached depends on the action: see step_env")

    def get_obs(self, state: XLandState, params: Any = None, key=None) -> jax.Array:
        from xminigrid.core.observation import transparent_field_of_view

        view = params.inner.view_size
        return transparent_field_of_view(state.inner.grid, state.inner.agent, view, view)

    @property
    def num_actions(self) -> int:
        return self.inner.num_actions(self._params)

    def action_space(self, params: XLandParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: XLandParams | None = None) -> spaces.Box:
        from xminigrid.core.constants import NUM_TILES

        # colours have fewer numbers than tiles
        return spaces.Box(0, NUM_TILES - 1, self.inner.observation_shape(self._params), jnp.uint8)

    def render(self, state: XLandState, params: XLandParams) -> np.ndarray:
        """One state as XLand-MiniGrid draws it, uint8 [height, width, 3]."""
        return self.inner.render(params.inner, _timestep(state))


def _state(timestep: Any) -> XLandState:
    return XLandState(inner=timestep.state, time=jnp.asarray(timestep.state.step_num, jnp.int32))


def _timestep(state: XLandState) -> Any:
    """The argument of `step`, which uses nothing but the state."""
    from xminigrid.types import StepType, TimeStep

    return TimeStep(state.inner, StepType.MID, jnp.zeros(()), jnp.ones(()), None)


def _xminigrid() -> Any:
    try:
        import xminigrid
    except ModuleNotFoundError as error:
        raise ValueError(
            f"XLand-MiniGrid is not installed ({error.name} is missing): pip install 'jaxrl-hier[xland]'"
        ) from None
    return xminigrid


def hidden_objects(env: XLand, objects: int = 4, count: int = 2**14, seed: int = 0) -> Any:
    """Rulesets without rules: `objects` different objects, and the goal is to stand next to a certain one.

    It is hidden which; an agent with a memory tries each once. `count` rulesets, an xminigrid Benchmark; no download.
    """
    from xminigrid.benchmarks import Benchmark
    from xminigrid.core.constants import Colors, Tiles
    from xminigrid.core.goals import AgentNearGoal
    from xminigrid.core.rules import EmptyRule

    kinds = (Tiles.BALL, Tiles.SQUARE, Tiles.PYRAMID, Tiles.KEY, Tiles.HEX, Tiles.STAR)
    colors = (Colors.RED, Colors.GREEN, Colors.BLUE, Colors.PURPLE, Colors.YELLOW, Colors.GREY)
    tiles = np.array([(kind, color) for kind in kinds for color in colors], np.uint8)
    if not 1 <= objects <= len(tiles):
        raise ValueError(f"there are 1 to {len(tiles)} different objects, not {objects}")
    rng = np.random.default_rng(seed)
    lying = tiles[np.argsort(rng.random((count, len(tiles))), axis=1)[:, :objects]]  # [count, objects, 2]
    return Benchmark(
        goals=jax.vmap(lambda tile: AgentNearGoal(tile=tile).encode())(jnp.asarray(lying[:, 0])),
        rules=jnp.broadcast_to(EmptyRule().encode(), (count, 1, len(EmptyRule().encode()))),
        init_tiles=jnp.asarray(lying),
        num_rules=jnp.zeros(count, jnp.int32),
    )


def xland_tasks(env: XLand, benchmark: Any) -> Tasks:
    """The rulesets of an xminigrid Benchmark, each equally likely; a new one every episode."""
    params = env.default_params

    def sample(key: jax.Array) -> XLandParams:
        return params.replace(inner=params.inner.replace(ruleset=benchmark.sample_ruleset(key)))

    return Tasks(sample=sample, resample="episode")
