"""Atari games in JAX: jaxtari's, unchanged, behind the contract of this package.

    pip install 'jaxrl-hier[atari]' && install-sprites      # jaxtari's own; it asks whether the ROMs are yours

    env = Atari("montezumarevenge", "pixels")

Rules and pictures are jaxtari's. An action lasts for four frames and an episode begins with up to 30 no-op frames (Mnih
et al., 2015); each frame repeats the previous action with probability 0.25, and an episode ends with the game, not with
a life (Machado et al., 2018). Rewards are signs unless `clip` is off, and the actions are the game's own, not all 18.
An observation shows the last frame alone, for agents with a memory. Unlike in jaxtari's wrappers, `step_env` never
resets, and the limit of 108 000 frames is `is_truncated`, separate from the game's end.
"""

import difflib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.resetting import select

FRAMES = 4  # of an action
STICKY = 0.25  # probability that a frame repeats the previous action
NOOPS = 30  # frames at most before the first action
NOOP = 0  # as ALE numbers actions
SIDE = 84  # of a picture


@struct.dataclass
class AtariState(environment.EnvState):
    """A game and the action of its last frame."""

    game: Any  # jaxtari's state
    action: jax.Array  # [] int32
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class AtariParams(environment.EnvParams):
    """There is one task."""

    max_steps_in_episode: int = 108_000 // FRAMES


class Atari(environment.Environment[AtariState, AtariParams]):
    """Action: one of the game's own. Reward: the sign of the points gained; `info["points"]` has them.

    Observation, float32 in [0, 1]: "objects", [F], jaxtari's features of all objects, each scaled by its range;
    "pixels", [84, 84, 1], the brightness of the picture.

    Args:
        game: name of the game in jaxtari, or one of its environments.
        observation: "objects" or "pixels".
        clip: False: rewards are points.

    Raises:
        ValueError: jaxtari or its pictures are not installed, or it knows no such game.
    """

    costly_reset = True  # up to 30 frames are played

    def __init__(
        self,
        game: Any = "montezumarevenge",
        observation: Literal["objects", "pixels"] = "objects",
        clip: bool = True,
    ):
        super().__init__()
        if observation not in ("objects", "pixels"):
            raise ValueError(f"observation must be 'objects' or 'pixels', got {observation!r}")
        self.game = _make_game(game) if isinstance(game, str) else game
        self.pixels, self.clip = observation == "pixels", clip
        self._name = f"atari-{game if isinstance(game, str) else type(game).__name__}{'-pixels' if self.pixels else ''}"
        self._space = self.game.observation_space()
        every = [space for space, _ in _numbers(self._space, None)]
        self._low, self._high = (
            np.concatenate([_bound(space, side) for space in every]).astype(np.float32) for side in ("low", "high")
        )
        meanings = np.asarray(getattr(self.game, "ACTION_SET", range(self.num_actions)))
        self._noop = int(np.argmax(meanings == NOOP)) if NOOP in meanings else None

    @property
    def name(self) -> str:
        return self._name

    @property
    def default_params(self) -> AtariParams:
        return AtariParams()

    def reset_env(self, key: jax.Array, params: AtariParams) -> tuple[jax.Array, AtariState]:
        key_game, key_nothing = jax.random.split(key)
        # some games keep the key in their state: plain words stack and compare like any array
        _, game = self.game.reset(jax.random.key_data(key_game))
        noop = jnp.asarray(self._noop or 0, jnp.int32)

        def idle(i: jax.Array, game: Any) -> Any:
            _, following, _, over, _ = self.game.step(game, noop)
            return select(over, game, following)  # an episode does not begin with a finished game

        if self._noop is not None:
            game = jax.lax.fori_loop(0, jax.random.randint(key_nothing, (), 0, NOOPS + 1), idle, game)
        state = AtariState(game=game, action=noop, time=jnp.zeros((), jnp.int32))
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: AtariState, action: jax.Array, params: AtariParams
    ) -> tuple[jax.Array, AtariState, jax.Array, jax.Array, dict[str, Any]]:
        def frame(carry: Any, sticks: jax.Array) -> tuple[Any, None]:
            game, before, over, points = carry
            now = jnp.where(sticks, before, jnp.asarray(action, jnp.int32))
            _, following, gained, ends, _ = self.game.step(game, now)
            # what comes after the end does not count
            return (select(over, game, following), now, over | ends, points + jnp.where(over, 0.0, gained)), None

        begin = state.game, state.action, jnp.zeros((), bool), jnp.zeros(())
        sticks = jax.random.bernoulli(key, STICKY, (FRAMES,))
        (game, before, over, points), _ = jax.lax.scan(frame, begin, sticks)
        state = AtariState(game=game, action=before, time=state.time + 1)
        reward = jnp.sign(points) if self.clip else points
        return self.get_obs(state, params), state, reward, over, {"points": points}

    def is_terminated(self, state: AtariState, params: AtariParams) -> jax.Array:
        raise NotImplementedError("whether a game is over may depend on the action: see step_env")

    def get_obs(self, state: AtariState, params: Any = None, key: Any = None) -> jax.Array:
        if self.pixels:
            bright = jnp.dot(self.game.render(state.game).astype(jnp.float32), jnp.array([0.299, 0.587, 0.114]))
            return jnp.clip(jax.image.resize(bright, (SIDE, SIDE), "linear") / 255, 0, 1)[..., None]
        every = [jnp.ravel(x) for _, x in _numbers(self._space, self.game._get_observation(state.game))]
        objects = jnp.concatenate(every).astype(jnp.float32)
        return jnp.clip((objects - self._low) / (self._high - self._low), 0, 1)

    @property
    def num_actions(self) -> int:
        return int(self.game.action_space().n)

    def action_space(self, params: AtariParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: AtariParams | None = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (SIDE, SIDE, 1) if self.pixels else self._low.shape, jnp.float32)

    def render(self, state: AtariState, params: AtariParams | None = None) -> np.ndarray:
        """One state as jaxtari draws it, uint8 [210, 160, 3]."""
        return np.asarray(self.game.render(state.game))


def _numbers(space: Any, obs: Any) -> list[tuple[Any, Any]]:
    """The spaces of single arrays, each with its part of an observation; by name, since jaxtari's spaces and
    observations need not have the same order."""
    within = getattr(space, "spaces", None)
    if within is None:
        return [(space, obs)]
    part = lambda name: None if obs is None else getattr(obs, name)
    return [pair for name, inner in within.items() for pair in _numbers(inner, part(name))]


def _bound(space: Any, side: str) -> np.ndarray:
    """The lower or upper bounds of a Box or Discrete, [F]."""
    if hasattr(space, "n"):
        return np.array([0 if side == "low" else max(space.n - 1, 1)])
    return np.broadcast_to(np.asarray(getattr(space, side)), space.shape).ravel()


def _make_game(name: str) -> Any:
    try:
        import jaxtari
    except ModuleNotFoundError as error:
        raise ValueError(
            f"jaxtari is not installed ({error.name} is missing): pip install 'jaxrl-hier[atari]'"
        ) from None
    known = jaxtari.list_available_games()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        raise ValueError(f"jaxtari has no game {name!r}; nearest: {', '.join(near)}")
    missing = "jaxtari's pictures are not installed: run its install-sprites"
    try:
        jaxtari.check_ownership()
    except (RuntimeError, EOFError):  # many lines of advice, or a prompt without a terminal
        raise ValueError(missing) from None
    try:
        return jaxtari.make(name)
    except (ImportError, OSError) as error:  # its pictures and walls are in files that are installed apart
        raise ValueError(f"{missing} ({str(error).splitlines()[0]})") from None
