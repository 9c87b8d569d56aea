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


NOTHING = np.full(3, np.nan)


def colour_that_pays(obs, action, reward):
    return jnp.where(reward > 0, obs[action], obs[1 - action])


def played(player, episodes=2000, sees=colour_that_pays, first=NOTHING):
    """Rewards [episodes, steps] of `player(obs [2, 3], what it knows, key)` -> action. It knows `first`, and then what
    it `sees` of its last step."""
    env, tasks = jaxrl_envs.make("two-colours")

    def episode(key):
        task = tasks.sample(key)
        obs, state = env.reset_env(key, task)

        def step(carry, key):
            obs, state, knows = carry
            action = player(obs, knows, key)
            after, state, reward, _, _ = env.step_env(key, state, action, task)
            return (after, state, sees(obs, action, reward)), (reward, env.is_truncated(state, task))

        _, (rewards, over) = jax.lax.scan(step, (obs, state, jnp.asarray(first)), jax.random.split(key, 100))
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


def test_the_last_reward_is_a_memory_of_one_bit():
    """Of all episodes half are paid in full and half in every other step, within the error of their number."""
    redder_if_paid = lambda obs, knows, key: jnp.where(knows, jnp.argmax(obs[:, 0]), jnp.argmin(obs[:, 0]))
    rewards = played(redder_if_paid, sees=lambda obs, action, reward: reward > 0, first=jnp.ones((), bool))
    earned = rewards.sum(axis=1)
    assert set(earned) == {50.0, 100.0}
    assert abs(earned.mean() - 75) < 4 * 25 / np.sqrt(len(earned))


def test_steps_of_an_episode():
    assert two_colours_tasks(7).time_limit() == 7
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        two_colours_tasks(0)
