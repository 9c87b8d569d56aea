"""Landmarks and the moving mass: the contract, and the dynamics against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.controller_tasks import Landmarks, MassState, MovingMass, landmarks_tasks

KEY = jax.random.key(0)


@pytest.mark.parametrize("name", ["landmarks", "moving-mass"])
def test_contract(name):
    env, tasks = jaxrl_envs.make(name)
    sample = lambda key: tasks.sample(key).replace(max_steps_in_episode=20)
    check_env(env, tasks._replace(sample=sample), episodes=2)


def test_a_move_is_at_most_a_hundredth_and_ends_within_one_of_the_goal():
    env = Landmarks()
    params = landmarks_tasks().sample(KEY)
    goal = np.array([3.0, 3.0])
    position, steps, ended = np.zeros(2), 0, False
    _, state = env.reset_env(KEY, params)
    step = jax.jit(env.step_env)
    while not ended:
        ended = np.linalg.norm(goal - position) <= 0.01
        way = goal - position
        position = position + 0.01 * way / max(np.linalg.norm(way), 0.01)
        obs, state, reward, terminated, _ = step(KEY, state, jnp.asarray(100 * way, jnp.float32), params)
        steps += 1
        assert bool(terminated) == ended
        np.testing.assert_allclose(obs, position, atol=1e-4)
        assert reward == -1
    assert steps == 425  # of √18, as far as the paper's goal
    _, after, *_ = step(KEY, state.replace(position=jnp.ones(2)), jnp.array([0.25, 0.0]), params)
    np.testing.assert_allclose(after.position, [1.0025, 1.0], atol=1e-6)


def test_the_mass_moves_by_its_new_velocity():
    env = MovingMass()
    state = MassState(position=jnp.float32(0.3), velocity=jnp.float32(0.04), time=jnp.int32(0))
    obs, *_ = env.step_env(KEY, state, jnp.array([0.9]), env.default_params)
    velocity = 0.04 + 0.009 - 0.175 * 0.04
    np.testing.assert_allclose(obs, [0.3 + velocity, velocity], rtol=1e-6)


@pytest.mark.parametrize(
    ("position", "velocity", "over"),
    [(2.0, 0.0, True), (2.00009, -0.00009, True), (1.9998, 0.0, False), (2.0, 0.0002, False), (1.0, 0.0, False)],
)
def test_the_mass_has_to_rest_at_its_target(position, velocity, over):
    state = MassState(position=jnp.float32(position), velocity=jnp.float32(velocity), time=jnp.int32(0))
    assert bool(MovingMass().is_terminated(state, MovingMass().default_params)) == over
