"""Pgx (Koyama et al., NeurIPS 2023): board games against an opponent who moves at random, 2048 and MinAtar in JAX.

    jaxrl-hier train dqn --env pgx:tic_tac_toe                pip install 'jaxrl-hier[pgx]'

The agent is Pgx's player 0; Pgx draws who moves first. A step is the agent's move and those of the others
until it is the agent's turn again. An action that is not allowed loses the game, as Pgx has it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl_envs.adapters import Adapter, package, require_name

AGENT = 0
# the agent's moves in the longest game, where that is short; a limit that leaves time to evaluations elsewhere
MOVES = {"tic_tac_toe": 5, "connect_four": 21, "kuhn_poker": 2, "leduc_holdem": 6, "othello": 60, "hex": 61}


class Pgx(Adapter):
    """Action: one of the game's. Observation, float32: as Pgx shows the state to the agent. Reward: that of the agent.

    `info["legal_action_mask"]` tells which actions are allowed next.

    Args:
        name: of the game in Pgx.
        limit: of the agent's moves in an episode; default: those of the longest game, or 1000.

    Raises:
        ValueError: Pgx is not installed, or has no such game.
    """

    def __init__(self, name: str = "tic_tac_toe", limit: int | None = None):
        pgx = package("pgx", "Pgx", "pgx")
        require_name(name, pgx.available_envs(), "Pgx")
        self.env = pgx.make(name)
        observations = spaces.Box(-jnp.inf, jnp.inf, self.env.observation_shape, jnp.float32)
        actions = spaces.Discrete(self.env.num_actions)
        super().__init__(f"pgx:{name}", limit or MOVES.get(name, 1000), observations, actions)

    def begin(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        key_game, key_others = jax.random.split(key)
        state, _ = self._others_move(key_others, self.env.init(key_game))
        return self._observed(state), state

    def go_on(
        self, key: jax.Array, inner: Any, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        key_move, key_others = jax.random.split(key)
        moved = self.env.step(inner, action, key_move)
        state, later = self._others_move(key_others, moved)
        reward = moved.rewards[AGENT] + later
        return self._observed(state), state, reward, state.terminated, {"legal_action_mask": state.legal_action_mask}

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> jax.Array:
        return self._observed(state.inner)

    def _others_move(self, key: jax.Array, state: Any) -> tuple[Any, jax.Array]:
        """The state when it is the agent's turn or the game is over, and the agent's reward [] until then."""
        if self.env.num_players == 1:
            return state, jnp.zeros(())

        def waits(carry: tuple[Any, jax.Array, jax.Array]) -> jax.Array:
            return (carry[0].current_player != AGENT) & ~carry[0].terminated

        def move(carry: tuple[Any, jax.Array, jax.Array]) -> tuple[Any, jax.Array, jax.Array]:
            state, reward, key = carry
            key, key_choice, key_move = jax.random.split(key, 3)
            action = jax.random.categorical(key_choice, jnp.where(state.legal_action_mask, 0.0, -jnp.inf))
            state = self.env.step(state, action, key_move)
            return state, reward + state.rewards[AGENT], key

        state, reward, _ = jax.lax.while_loop(waits, move, (state, jnp.zeros(()), key))
        return state, reward

    def _observed(self, state: Any) -> jax.Array:
        return jnp.asarray(self.env._observe(state, jnp.int32(AGENT)), jnp.float32)
