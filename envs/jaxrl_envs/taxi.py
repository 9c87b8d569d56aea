"""Taxi: fetch a passenger from one of four sites and take them to another (Dietterich, JAIR 13, 2000).

A 5 by 5 grid with the sites R, G, Y, B (numbers 0 to 3) and three walls. Row 0 is on top: the paper's x is the column
and its y is 4 - row. Actions are 0 south, 1 north, 2 east, 3 west, 4 pick up, 5 put down; a move into a wall leaves the
taxi where it is. The observation is one number, the same as in gymnasium's Taxi (`encode`, `decode`):

    ((row * 5 + column) * 5 + passenger) * 4 + destination        passenger: 0..3 waits at that site, 4 is in the taxi

Two sets of rules are in use under this name:

- "dietterich", the author's code: the taxi starts anywhere, and source and destination are any of the 16 pairs. Every
  action pays -1; delivery 20 more, which is 19; an impossible pick up or put down 10 less, which is -11. The passenger
  can be put down only at the destination. One who waits at his destination must still be picked up and put down:
  "delivered" has numbers of its own, 500 + site, and there are 504 observations.
- "gymnasium", its Taxi-v3 and Taxi-v4: source and destination differ. An action pays -1, but delivery 20, and an
  impossible pick up or put down -10. The passenger can be put down at any site. He is delivered when both he and the
  taxi are at the destination, and there are 500 observations; 96 of them, in which he is at the destination and the
  taxi elsewhere, are never reached. At most 200 steps.

Under either the taxi can be noisy, the passenger fickle, or both:

- Noise. "dietterich": with probability 0.1 each the taxi moves to the right or to the left of the chosen direction.
  "gymnasium", as `is_rainy` in v4: the same, but a move into a wall leaves the taxi where it is.
- Fickle. "dietterich", again the author's code: when a move is tried with the passenger in the taxi and the taxi at the
  site of the pick up, then with probability 0.3 one of all four destinations is drawn, before the move, whether or not
  the move succeeds, and each time anew. In the paper's text he changes his mind one square from the source.
  "gymnasium", as `fickle_passenger` in v4: the first move that takes the taxi with him to another cell, and no other of
  the episode, changes the destination with probability 0.3 to one of the three others.

A fickle passenger makes the task partially observed: the future depends on the source after the pick up, or on whether
that first move has been made, which the state has and the observation has not. `observation_of_state` maps one to the
other. `model` is over states, which equal the observations unless the passenger is fickle.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.random_bits import random_bits

SIZE = 5
NUM_CELLS = SIZE * SIZE  # cell = row * 5 + column
SITES = {"R": (0, 0), "G": (0, 4), "Y": (4, 0), "B": (4, 3)}  # row and column
SITE_CELLS = np.array([row * SIZE + col for row, col in SITES.values()])
IN_TAXI = len(SITES)
COLOURS = ("tab:red", "tab:green", "goldenrod", "tab:blue")
WALLS = ((0, 1), (1, 1), (3, 0), (4, 0), (3, 2), (4, 2))  # on the right of these cells
DIRECTIONS = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])  # [4, 2] row and column, in the order of the actions
SIDES = np.array([(0, 2, 3), (1, 2, 3), (2, 0, 1), (3, 0, 1)])  # [4, 3] each direction and those across it
PICK_UP, PUT_DOWN = 4, 5
NUM_ACTIONS = 6
NUM_SEEN_LIVE = NUM_CELLS * 5 * 4  # 500; Dietterich's rules add an end per site


def encode(row: Any, col: Any, passenger: Any, destination: Any) -> Any:
    """The observation as a number in 0..499; integers or arrays of them."""
    return ((row * SIZE + col) * 5 + passenger) * 4 + destination


def decode(observation) -> tuple:
    """Row, column, passenger (0..3 waits at that site, 4 is in the taxi) and destination; integers or arrays.

    500 + site, delivered at that site, gives the site's row and column, and the site as passenger and destination.
    """
    xp = jnp if isinstance(observation, jax.Array) else np
    return tuple(xp.moveaxis(xp.asarray(_DECODED)[observation], -1, 0))


def _decoded() -> np.ndarray:
    live = np.stack(np.unravel_index(np.arange(NUM_SEEN_LIVE), (SIZE, SIZE, 5, 4)), axis=1)
    site = np.arange(4)
    return np.concatenate([live, np.stack([*np.divmod(SITE_CELLS, SIZE), site, site], axis=1)]).astype(np.int32)


_DECODED = _decoded()  # [504, 4]


def neighbours() -> np.ndarray:
    """[25, 4] the cell that a move in each direction leads to; the same cell where there is a wall."""
    cells = np.stack(np.divmod(np.arange(NUM_CELLS), SIZE), axis=1)
    row, col = np.moveaxis(np.clip(cells[:, None] + DIRECTIONS, 0, SIZE - 1), -1, 0)
    neighbour = row * SIZE + col
    for row, col in WALLS:
        left = row * SIZE + col
        neighbour[left, 2], neighbour[left + 1, 3] = left, left + 1
    return neighbour


def _moves(rules: str, noise: bool) -> np.ndarray:
    """[25, 4, L] cells that a move in each direction can reach: as intended, and astray to either side."""
    neighbour = neighbours()
    moves = neighbour[:, SIDES if noise else SIDES[:, :1]]
    if rules == "gymnasium":
        blocked = neighbour == np.arange(NUM_CELLS)[:, None]
        moves = np.where(blocked[..., None], neighbour[..., None], moves)
    return moves


@struct.dataclass
class TaxiState(environment.EnvState):
    """Everything about taxi, passenger and destination."""

    index: jax.Array  # [] int32, the state's number in `model`
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class TaxiParams(environment.EnvParams):
    """There is one task; only its time limit can be chosen."""

    max_steps_in_episode: int = 500


class Taxi(environment.Environment[TaxiState, TaxiParams]):
    """Action: 0 south, 1 north, 2 east, 3 west, 4 pick up, 5 put down. Delivery pays and terminates; see the module.

    Args:
        rules: "dietterich" or "gymnasium".
        noise: moves go astray.
        fickle: the passenger may change the destination.
        observation: "index" (int32, see `encode`), "one_hot" (float32, as long as there are indices) or "factored"
            (row, column, passenger, destination; [4] float32).

    Attributes:
        num_states: S.
        observation_of_state: [S] the observation of each state, as an index.
        num_observations: 504 with Dietterich's rules, 500 with gymnasium's.
        starts: [N] the states, equally likely, in which an episode begins.
        ended: [S] bool, the states in which the passenger is delivered.
    """

    def __init__(
        self,
        rules: Literal["dietterich", "gymnasium"] = "dietterich",
        *,
        noise: bool = False,
        fickle: bool = False,
        observation: Literal["index", "one_hot", "factored"] = "index",
    ):
        super().__init__()
        if rules not in ("dietterich", "gymnasium"):
            raise ValueError(f"rules is 'dietterich' or 'gymnasium', not {rules!r}")
        if observation not in ("index", "one_hot", "factored"):
            raise ValueError(f"observation is 'index', 'one_hot' or 'factored', not {observation!r}")
        self.rules, self.noise, self.fickle, self.observation = rules, noise, fickle, observation
        self._build()

    def _build(self) -> None:
        """Build the tables of the rules.

        A live state is (cell, code, destination). The code is the passenger, 0..4, together with the hidden part of the
        state with a fickle one: 4 + s is in the taxi and was picked up at s ("dietterich"); 5 + passenger once the
        first move with him has been made ("gymnasium").
        """
        dietterich = self.rules == "dietterich"
        keeps_source, keeps_moved = self.fickle and dietterich, self.fickle and not dietterich
        passengers = np.array([0, 1, 2, 3, *[4] * 4] if keeps_source else [0, 1, 2, 3, 4] * (1 + keeps_moved))
        codes = len(passengers)
        number = lambda cell, code, destination: (cell * codes + code) * 4 + destination
        cell, code, destination = (index.ravel() for index in np.indices((NUM_CELLS, codes, 4)))
        live = len(cell)
        passenger = passengers[code]
        held = passenger == IN_TAXI
        at = np.full(NUM_CELLS, -1)
        at[SITE_CELLS] = np.arange(4)
        at = at[cell]  # the site where the taxi is, or -1
        remembered = code // 5 * 5 if keeps_moved else 0

        # Moves: L reachable cells times M changes of mind, which add 0, 1, 2 or 3 to the destination, modulo 4. One of
        # all four with probability 0.3 leaves 0.7 + 0.3 / 4 = 31 / 40 for the old one and 3 / 40 for each other.
        astray = [8, 1, 1] if self.noise else [1]
        change = ([31, 3, 3, 3] if dietterich else [7, 1, 1, 1]) if self.fickle else [1]
        before = [index[:, None, None, None] for index in (cell, code, destination)]
        entered = _moves(self.rules, self.noise)[cell][..., None]  # [S, 4, L, 1]
        wavers = False
        if keeps_source:
            wavers = (held & (at == code - IN_TAXI))[:, None, None, None]
        elif keeps_moved:
            wavers = (before[1] == IN_TAXI) & (entered != before[0])
        after = before[1] + 5 * (keeps_moved & wavers), (before[2] + wavers * np.arange(len(change))) % 4
        moved = number(entered, *after).reshape(live, 4, -1)

        can_pick_up = ~held & (at == passenger)
        picked_up = number(cell, IN_TAXI + (at if keeps_source else remembered), destination)
        delivers = held & (at == destination)
        can_put_down = delivers if dietterich else held & (at >= 0)
        put_down = live + destination if dietterich else number(cell, remembered + at, destination)

        successors = np.empty((live, NUM_ACTIONS, moved.shape[2]), int)
        successors[:, :4] = moved
        successors[:, PICK_UP] = np.where(can_pick_up, picked_up, np.arange(live))[:, None]
        successors[:, PUT_DOWN] = np.where(can_put_down, put_down, np.arange(live))[:, None]
        rewards = np.full((live, NUM_ACTIONS), -1.0)
        rewards[~can_pick_up, PICK_UP] = rewards[~can_put_down, PUT_DOWN] = -11.0 if dietterich else -10.0
        rewards[delivers, PUT_DOWN] = 19.0 if dietterich else 20.0
        seen = encode(cell // SIZE, cell % SIZE, passenger, destination)
        ended = (passenger == destination) & (at == destination)
        if dietterich:
            ends = np.arange(live, live + 4)
            successors = np.concatenate([successors, np.broadcast_to(ends[:, None, None], (4, *successors.shape[1:]))])
            rewards = np.concatenate([rewards, np.zeros((4, NUM_ACTIONS))])
            seen = np.concatenate([seen, NUM_SEEN_LIVE + np.arange(4)])
            ended = np.arange(live + 4) >= live

        self.weights = np.outer(astray, change).ravel()  # [K] how many of the equally likely draws lead to each column
        self.num_states, self.num_observations = len(successors), NUM_SEEN_LIVE + 4 * dietterich
        self.starts = np.flatnonzero((code < IN_TAXI) & (dietterich | (passenger != destination))).astype(np.int32)
        self.successors = successors.astype(np.int32)  # [S, A, K]
        self.columns = np.repeat(np.arange(len(self.weights)), self.weights).astype(np.int32)  # [N] one of each draw
        self.rewards = rewards.astype(np.float32)  # [S, A], whatever the successor
        self.observation_of_state = seen.astype(np.int32)
        self.ended = ended

    @property
    def default_params(self) -> TaxiParams:
        """At most 200 steps with gymnasium's rules; 500 with Dietterich's, where his polling schedule begins."""
        return TaxiParams(max_steps_in_episode=500 if self.rules == "dietterich" else 200)

    @property
    def partially_observed(self) -> bool:
        """Whether the states of `model` are more than the observations: with a fickle passenger."""
        return self.fickle

    def reset_env(self, key: jax.Array, params: TaxiParams) -> tuple[jax.Array, TaxiState]:
        start = jnp.asarray(self.starts)[random_bits(key) % len(self.starts)]
        state = TaxiState(index=start, time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: TaxiState, action: jax.Array, params: TaxiParams
    ) -> tuple[jax.Array, TaxiState, jax.Array, jax.Array, dict[str, Any]]:
        # 2³² is no multiple of the number of draws, so their probabilities differ, by 2⁻³²
        column = jnp.asarray(self.columns)[random_bits(key) % len(self.columns)]
        reward = jnp.asarray(self.rewards)[state.index, action]
        state = TaxiState(index=jnp.asarray(self.successors)[state.index, action, column], time=state.time + 1)
        return self.get_obs(state), state, reward, reward > 0, {}  # nothing but a delivery pays

    def is_terminated(self, state: TaxiState, params: TaxiParams) -> jax.Array:
        return jnp.asarray(self.ended)[state.index]

    def get_obs(self, state: TaxiState, params=None, key=None) -> jax.Array:
        seen = jnp.asarray(self.observation_of_state)[state.index] if self.partially_observed else state.index
        if self.observation == "index":
            return seen
        if self.observation == "one_hot":
            return jax.nn.one_hot(seen, self.num_observations, dtype=jnp.float32)
        return jnp.asarray(_DECODED, jnp.float32)[seen]

    @property
    def num_actions(self) -> int:
        return NUM_ACTIONS

    def action_space(self, params: TaxiParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(NUM_ACTIONS)

    def observation_space(self, params: TaxiParams | None = None) -> spaces.Discrete | spaces.Box:
        if self.observation == "index":
            return spaces.Discrete(self.num_observations)
        if self.observation == "one_hot":
            return spaces.Box(0.0, 1.0, (self.num_observations,), jnp.float32)
        return spaces.Box(np.zeros(4, np.float32), np.array([4, 4, 4, 3], np.float32), (4,), jnp.float32)

    def model(self, params: TaxiParams) -> tuple[jax.Array, jax.Array]:
        """The exact model: P [S, A, S'] probabilities and R [S, A] rewards.

        S counts states, not observations (`observation_of_state`). A delivered passenger ends the episode: those states
        are absorbing and pay nothing. Float64 where jax has x64 enabled.
        """
        states, actions = np.arange(self.num_states)[:, None, None], np.arange(NUM_ACTIONS)[:, None]
        P = jnp.zeros((self.num_states, NUM_ACTIONS, self.num_states), jnp.result_type(float))
        P = P.at[states, actions, self.successors].add(self.weights) / self.weights.sum()  # whole numbers sum exactly
        P = jnp.where(self.ended[:, None, None], np.eye(self.num_states)[:, None], P)
        return P, jnp.where(self.ended[:, None], 0.0, jnp.asarray(self.rewards, P.dtype))

    def start_distribution(self, params: TaxiParams) -> jax.Array:
        """The probability [S] that an episode begins in each state."""
        return jnp.zeros(self.num_states).at[self.starts].set(1 / len(self.starts))

    def draw(self, ax: Any, state: Any = None) -> None:
        """Draw the map on a matplotlib axis.

        Args:
            state: its number; adds the taxi, the passenger (disc, at a site or in the taxi) and the destination (star).
        """
        from jaxrl_envs.drawing import draw_taxi

        shown: dict[str, Any] = {}
        if state is not None:
            row, col, passenger, destination = decode(self.observation_of_state[int(state)])
            waiting = None if passenger == IN_TAXI else passenger
            shown = {"taxi": (row, col), "passenger": waiting, "destination": destination}
        draw_taxi(ax, SIZE, SITES, COLOURS, WALLS, **shown)

    def render(self, state: TaxiState, params: TaxiParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]; see `draw`."""
        from jaxrl_envs.rendering import picture

        return picture(lambda ax: self.draw(ax, state.index), size)
