"""Robots in compiled form, held to Gymnasium's own step by step."""

import jax
import numpy as np
import pytest

import jaxrl_envs

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("mujoco.mjx")

from jaxrl_envs.adapters.locomotion import CHEETAH, TOLD, Locomotion  # noqa: E402
from jaxrl_envs.adapters.mjx import RULES, CompiledRobot, CompiledState  # noqa: E402
from jaxrl_envs.adapters.mujoco import Simulator  # noqa: E402


def state_of(env, free):
    """The compiled state of a simulator of Gymnasium."""
    place = env.data.body("torso").xpos[:2] if free else np.array([env.data.qpos[0], 0.0])
    numbers = env.data.qpos, env.data.qvel, env.data.qacc_warmstart, place
    return CompiledState(*(np.array(x, np.float32) for x in numbers))


def touches(env, action):
    """Whether a part of the robot meets the ground, or another part, at the beginning or in the last stage of one of
    the simulator's steps that an action lasts."""
    simulator, met = Simulator(env), []
    before = simulator.get()
    for _ in range(env.frame_skip):
        simulator.mujoco.mj_forward(env.model, env.data)
        met.append(env.data.ncon > 0)
        env.do_simulation(action, 1)
        met.append(env.data.ncon > 0)  # of Runge and Kutta's last stage
    simulator.put(before)
    return any(met)


@pytest.mark.parametrize("id", RULES)
def test_steps_are_gymnasiums(id):
    """From each state of an episode, in single precision. The ant's agree where nothing touches the ground; where a
    foot does, MJX's solver finds other forces, in double precision too."""
    settings = {"exclude_current_positions_from_observation": False} if id == "HalfCheetah-v5" else {}
    robot, env = CompiledRobot(id, TOLD, **settings), gymnasium.make(id, **settings).unwrapped
    assert robot.observations.shape == env.observation_space.shape
    assert robot.limit == gymnasium.spec(id).max_episode_steps
    step, rng, free = jax.jit(robot.step), np.random.default_rng(0), robot.rules.free
    env.reset(seed=0)
    compared = 0
    for _ in range(40):
        action = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        met = touches(env, action)
        seen = step(state_of(env, free), action)
        obs, reward, terminated, _, info = env.step(action)
        if not (free and met):
            compared += 1
            told = [info.get(name, 0.0) for name in TOLD]
            for ours, theirs in ((seen.obs, obs), (seen.reward, reward), (seen.told, told)):
                np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(seen.state.qpos, env.data.qpos, atol=0.02)
        assert seen.terminated == terminated
        if terminated:
            env.reset(seed=1)
    assert compared >= (10 if free else 40)


def test_a_family_in_both_forms():
    compiled, tasks = jaxrl_envs.make("mjx:cheetah-velocity")
    assert compiled.name == "mjx:cheetah-velocity"
    env, key = gymnasium.make("HalfCheetah-v5", **CHEETAH).unwrapped, jax.random.key(0)
    env.reset(seed=0)
    task = tasks.sample(key)
    _, state = compiled.reset_env(key, task)
    state = state.replace(inner=state_of(env, free=False))
    action = np.linspace(-1, 1, 6).astype(np.float32)
    _, after, reward, terminated, _ = jax.jit(compiled.step_env)(key, state, action, task)
    _, paid, _, _, info = env.step(action)
    expected = paid - info["reward_forward"] - abs(info["x_velocity"] - float(task.goal))
    np.testing.assert_allclose(reward, expected, rtol=1e-4)
    assert not terminated
    assert after.time == 1
    np.testing.assert_allclose(after.inner.qpos, env.data.qpos, rtol=1e-4, atol=1e-5)


def test_resets_have_gymnasiums_noise():
    robot = CompiledRobot("HalfCheetah-v5", exclude_current_positions_from_observation=False)
    words = jax.random.key_data(jax.random.split(jax.random.key(0), 2000))
    _, obs = jax.jit(jax.vmap(robot.reset))(words)
    positions, velocities = np.split(np.asarray(obs), [9], axis=1)
    assert np.abs(positions).max() <= 0.1
    np.testing.assert_allclose(positions.std(), 0.1 / np.sqrt(3), rtol=0.03)
    np.testing.assert_allclose(velocities.std(), 0.1, rtol=0.03)


def test_what_there_is_not():
    for make, line in [
        (lambda: jaxrl_envs.make("mjx:Humanoid-v5"), "MJX has no environment 'Humanoid-v5'"),
        (lambda: jaxrl_envs.make("mjx:humanoid-direction"), "MJX has no environment 'humanoid-direction'; nearest"),
        (lambda: Locomotion("humanoid-direction", compiled=True), "has no environment 'Humanoid-v5'"),
        (lambda: CompiledRobot("Ant-v5", colour=1), "Ant-v5 has no setting colour here"),
    ]:
        with pytest.raises(ValueError, match=line):
            make()
