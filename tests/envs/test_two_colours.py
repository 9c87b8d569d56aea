"""The two colours: what is seen and paid, and what players with and without memory earn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.two_colours import two_colours_tasks


def test_conforms():
    check_env(*jaxrl_envs.make("two-colours"), episodes=2)


def played(player, episodes=2000):
    """Rewards [episodes, steps] of `player(obs [2, 3], what it knows, key)` -> action, which knows the colour that has
    paid, or NaN."""
    env, tasks = jaxrl_envs.make("two-colours")

    def episode(key):
        task = tasks.sample(key)
        obs, state = env.reset_env(key, task)

        def step(carry, key):
            obs, state, knows = carry
            action = player(obs, knows, key)
            after, state, reward, _, _ = env.step_env(key, state, action, task)
            knows = jnp.where(reward > 0, obs[action], obs[1 - action])
            return (after, state, knows), (reward, env.is_truncated(state, task))

        _, (rewards, over) = jax.lax.scan(step, (obs, state, jnp.full(3, jnp.nan)), jax.random.split(key, 100))
        return rewards, over

    rewards, over = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), episodes))
    assert not over[:, :-1].any()
    assert over[:, -1].all()
    return np.asarray(rewards)


def test_who_remembers_the_colour_guesses_once():
    left_first = lambda obs, knows, key: jnp.where(jnp.array_equal(obs[1], knows), 1, 0)
    rewards = played(left_first)
    np.testing.assert_array_equal(rewards[:, 1:], 1)
    assert abs(rewards[:, 0].mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


@pytest.mark.parametrize(
    "player",
    [
        lambda obs, knows, key: 0,  # a place
        lambda obs, knows, key: jnp.argmax(obs[:, 0]),  # the redder one
        lambda obs, knows, key: jax.random.bernoulli(key).astype(int),
    ],
)
def test_who_does_not_remember_earns_half(player):
    """The redder colour pays in half of the episodes, always or never."""
    rewards = played(player)
    assert abs(rewards.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_steps_of_an_episode():
    assert two_colours_tasks(7).time_limit() == 7
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        two_colours_tasks(0)
