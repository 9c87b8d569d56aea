"""Atari games in JAX, those of jaxtari as they come, behind the contract of this package.

    pip install 'jaxrl-hier[atari]' && install-sprites      # jaxtari's own; it asks whether the ROMs are yours

    env = Atari("montezumarevenge", "pixels")

Rules and pictures are jaxtari's, what is around them is the protocol of Machado et al. (2018): an action lasts for four
frames, each of which repeats the one before with probability 0.25; an episode begins with up to 30 frames of nothing
and ends with the game, not with a life. Unlike jaxtari's wrappers `step_env` never resets, and the limit of 108 000
frames is `is_truncated`, apart from the game's end.
"""

import difflib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jax.flatten_util import ravel_pytree

FRAMES = 4  # of an action
STICKY = 0.25  # probability that a frame repeats the action before
NOTHING = 30  # frames at most before the first action
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
    """Action: one of those that the game knows. Reward: the sign of the points gained, or those points.

    Observation, float32 in [0, 1]: "objects", [F], what jaxtari tells of all objects, each number in units of its
    range; "pixels", [84, 84, 1], how bright the picture is.

    Args:
        game: what the game is called in jaxtari, or one of its environments.
        observation: "objects" or "pixels".
        clip: rewards are signs, as learners of Atari have them; False: points.

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
        self.game = _jaxtari_game(game) if isinstance(game, str) else game
        self._name = f"atari-{game if isinstance(game, str) else type(game).__name__}-{observation}"
        self.pixels, self.clip = observation == "pixels", clip
        of_all = lambda bound: np.concatenate(
            [
                np.broadcast_to(getattr(s, bound), s.shape).ravel()
                for s in jax.tree.leaves(self.game.observation_space())
            ]
        ).astype(np.float32)
        self._low, self._high = of_all("low"), of_all("high")

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
        frames = jax.random.randint(key_nothing, (), 0, NOTHING + 1)
        nothing = jnp.zeros((), jnp.int32)
        game = jax.lax.fori_loop(0, frames, lambda i, game: self.game.step(game, nothing)[1], game)
        state = AtariState(game=game, action=nothing, time=jnp.zeros((), jnp.int32))
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: AtariState, action: jax.Array, params: AtariParams
    ) -> tuple[jax.Array, AtariState, jax.Array, jax.Array, dict[str, Any]]:
        def frame(carry: Any, sticks: jax.Array) -> tuple[Any, None]:
            game, before, over, points = carry
            now = jnp.where(sticks, before, jnp.asarray(action, jnp.int32))
            _, following, gained, ends, _ = self.game.step(game, now)
            keep = lambda new, old: jnp.where(over, old, new)  # what comes after the end does not count
            game, gained = jax.tree.map(keep, following, game), jnp.where(over, 0.0, gained)
            return (game, now, over | ends, points + gained), None

        begin = state.game, state.action, jnp.zeros((), bool), jnp.zeros(())
        sticks = jax.random.bernoulli(key, STICKY, (FRAMES,))
        (game, before, over, points), _ = jax.lax.scan(frame, begin, sticks)
        state = AtariState(game=game, action=before, time=state.time + 1)
        return self.get_obs(state, params), state, jnp.sign(points) if self.clip else points, over, {}

    def is_terminated(self, state: AtariState, params: AtariParams) -> jax.Array:
        raise NotImplementedError("whether a game is over may depend on the action: see step_env")

    def get_obs(self, state: AtariState, params: Any = None, key: Any = None) -> jax.Array:
        if self.pixels:
            bright = jnp.dot(self.game.render(state.game).astype(jnp.float32), jnp.array([0.299, 0.587, 0.114]))
            return jnp.clip(jax.image.resize(bright, (SIDE, SIDE), "linear") / 255, 0, 1)[..., None]
        objects, _ = ravel_pytree(self.game._get_observation(state.game))
        return jnp.clip((objects.astype(jnp.float32) - self._low) / (self._high - self._low), 0, 1)

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


def _jaxtari_game(name: str) -> Any:
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
    try:
        return jaxtari.make(name)
    except RuntimeError:  # many lines of advice; it draws, and sees walls, by files that it does not come with
        raise ValueError("jaxtari's pictures are not installed: run its install-sprites") from None
