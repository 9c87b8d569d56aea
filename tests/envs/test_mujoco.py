"""Gymnasium's robots as functions: whole episodes against Gymnasium's own, bit for bit, and families of tasks against
rewards that are computed from the simulator's positions."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs import check_env
from tests.close import assert_close

gymnasium = pytest.importorskip("gymnasium")
mujoco = pytest.importorskip("mujoco")

from jaxrl_envs.adapters.locomotion import FAMILIES, LIMIT, Locomotion  # noqa: E402
from jaxrl_envs.adapters.mujoco import HostRobot, Mujoco, robots  # noqa: E402


def seed_of(key):
    high, low = map(int, jax.random.key_data(key))
    return high << 32 | low


def random_actions(space, steps, count=3):
    rng = np.random.default_rng(0)
    return rng.uniform(space.low, space.high, (steps, count, *space.shape)).astype(np.float32)


@pytest.mark.parametrize("id", robots())
def test_episodes_are_gymnasiums_bit_for_bit(id):
    """Three episodes in turns, in one simulator, so that whatever a state leaves out is lost."""
    env = Mujoco(HostRobot(id, threads=1))
    task, theirs = env.default_params, [gymnasium.make(id) for _ in range(3)]
    assert task.max_steps_in_episode == gymnasium.spec(id).max_episode_steps
    keys = jax.random.split(jax.random.key(1), 3)
    obs, state = jax.jit(jax.vmap(env.reset_env, (0, None)))(keys, task)
    step, going = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None))), [0, 1, 2]
    for key, own, first in zip(keys, theirs, obs):
        np.testing.assert_array_equal(first, own.reset(seed=seed_of(key))[0].astype(np.float32))
    for actions in random_actions(env.action_space(task), 60):
        obs, state, reward, terminated, _ = step(keys, state, actions, task)
        for i in going[:]:
            expected, own_reward, ended, _, _ = theirs[i].step(actions[i])
            np.testing.assert_array_equal(obs[i], expected.astype(np.float32))
            assert reward[i] == np.float32(own_reward)
            assert terminated[i] == ended
            if ended:
                going.remove(i)


@pytest.mark.parametrize("id", ["HalfCheetah-v5", "Hopper-v5", "Reacher-v5"])
def test_robots_conform(id):
    check_env(Mujoco(id), episodes=1, max_steps=1000)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_conform(name):
    env, tasks = jaxrl_envs.make(f"mujoco:{name}")
    assert env.name == f"mujoco:{name}"
    assert tasks.time_limit() == LIMIT == 200
    check_env(env, tasks, episodes=1)


def test_the_number_of_threads_changes_nothing():
    def play(threads):
        robot = HostRobot("Swimmer-v5", ("x_position", "no such"), threads)
        state, obs = jax.vmap(robot.reset)(jax.random.key_data(jax.random.split(jax.random.key(2), 7)))
        seen = jax.vmap(robot.step)(state, jnp.ones((7, 2)) * jnp.linspace(-1, 1, 7)[:, None])
        return obs, seen

    one, three = play(1), play(3)
    jax.tree.map(np.testing.assert_array_equal, one, three)
    np.testing.assert_array_equal(one[1].told[:, 1], 0)
    assert len(np.unique(one[1].told[:, 0])) == 7


def test_any_number_of_vmaps_and_devices():
    """Seeds × tasks × environments, split over two devices, as single steps."""
    env, tasks = jaxrl_envs.make("mujoco:ant-goal")
    task = tasks.test_batch(2, jax.random.key(0))
    keys = jax.random.split(jax.random.key(3), (2, 2, 2))
    inner = jax.vmap(env.reset_env, (0, None))
    _, state = jax.vmap(jax.vmap(inner), (0, None))(keys, task)
    actions = jax.random.uniform(jax.random.key(4), (2, 2, 2, 8), minval=-1)
    steps = jax.vmap(jax.vmap(jax.vmap(env.step_env, (0, 0, 0, None))), (0, 0, 0, None))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("seeds",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seeds"))
    split = [jax.device_put(x, sharding) for x in (keys, state, actions)]
    reward = jax.jit(steps)(*split, task)[2]
    for i in np.ndindex(2, 2, 2):
        of_it = jax.tree.map(lambda x, i=i: x[i[1]], task)
        alone = env.step_env(keys[i], jax.tree.map(lambda x, i=i: x[i], state), actions[i], of_it)[2]
        assert_close(reward[i], alone)


class Reference:
    """A family's reward, from Gymnasium's simulator, by the papers' formulas."""

    def __init__(self, name):
        family = FAMILIES[name]
        self.name, self.env = name, gymnasium.make(family.robot).unwrapped

    def place(self):
        """What the robot's speed is that of: its mass, its torso, or the joint that slides."""
        env = self.env
        if self.name.startswith("humanoid"):
            mass = env.model.body_mass[:, None]
            return (mass * env.data.xipos).sum(axis=0)[:2] / mass.sum()
        if self.name.startswith("ant"):
            return env.data.body("torso").xpos[:2].copy()
        return np.array([env.data.qpos[0], 0.0])

    def step(self, action, goal):
        before = self.place()
        self.env.do_simulation(action, self.env.frame_skip)
        velocity, data = (self.place() - before) / self.env.dt, self.env.data
        effort, touching = np.sum(action.astype(float) ** 2), np.clip(data.cfrc_ext, -1, 1) ** 2
        height = data.qpos[2]
        if self.name.startswith("cheetah"):
            paid = goal @ velocity if goal.ndim else -abs(velocity[0] - goal)
            return paid - 0.05 * effort, False
        if self.name == "walker-direction":
            fallen = not (0.8 < data.qpos[1] < 2.0 and -1.0 < data.qpos[2] < 1.0)
            return goal @ velocity + 1.0 * (not fallen) - 1e-3 * effort, fallen
        if self.name == "humanoid-direction":
            impact, fallen = min(5e-7 * np.sum(data.cfrc_ext**2), 10.0), not 1.0 < height < 2.0
            return 1.25 * goal @ velocity - 0.1 * effort - impact + 5.0 * (not fallen), fallen
        if self.name == "ant-goal-pearl":
            return -np.abs(data.qpos[:2] - goal).sum() - 0.1 * effort - 5e-4 * touching.sum(), False
        paid = {
            "ant-velocity": lambda: 1.0 - abs(velocity[0] - goal),
            "ant-direction": lambda: goal @ velocity,
            "ant-goal": lambda: 4.0 - np.abs(data.qpos[:2] - goal).sum(),
        }[self.name]()
        fallen = not 0.2 <= height <= 1.0
        return paid + 0.05 * (not fallen) - 0.005 * effort - 5e-4 * touching.sum(), fallen


@pytest.mark.parametrize("name", FAMILIES)
def test_rewards_of_families_are_the_papers(name):
    env, tasks = jaxrl_envs.make(f"mujoco:{name}")
    reference, key = Reference(name), jax.random.key(5)
    task = tasks.sample(key)
    _, state = env.reset_env(key, task)
    reference.env.reset(seed=seed_of(key))
    step = jax.jit(env.step_env)
    for (action,) in random_actions(env.action_space(task), 40, 1):
        obs, state, reward, terminated, _ = step(key, state, action, task)
        expected, fallen = reference.step(action, np.asarray(task.goal, float))
        np.testing.assert_allclose(reward, expected, rtol=1e-5, atol=1e-5)  # a sum of terms that may cancel
        assert terminated == fallen
        data = reference.env.data
        np.testing.assert_array_equal(obs[: data.qpos.size], data.qpos.astype(np.float32))
        if fallen:
            break


@pytest.mark.parametrize(
    ("name", "low", "high", "train"),
    [
        ("cheetah-velocity", 0, 2, None),
        ("cheetah-velocity-pearl", 0, 3, 100),
        ("cheetah-direction", -1, 1, 2),
        ("ant-velocity", 0, 3, None),
        ("ant-goal", -3, 3, None),
        ("ant-goal-pearl", -3, 3, 100),
        ("walker-direction", -1, 1, 2),
        ("humanoid-direction", -1, 1, 100),
    ],
)
def test_goals_are_the_papers(name, low, high, train):
    _, tasks = jaxrl_envs.make(f"mujoco:{name}")
    goals = np.asarray(jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 2000)).goal)
    assert low <= goals.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < goals.max() <= high
    assert (tasks.train and len(tasks.train.goal)) == train
    if "direction" in name:
        assert_close(np.linalg.norm(goals, axis=-1), np.ones(2000))
        assert np.abs(goals.mean(axis=0)).max() < 0.15
    if train == 100:
        assert not set(map(bytes, np.asarray(tasks.train.goal))) & set(map(bytes, np.asarray(tasks.test.goal)))
        assert len(tasks.test.goal) == 30
    else:
        assert len(tasks.test.goal) == 40


def test_learners_train_and_twice_the_same(tmp_path):
    small: dict = {"iterations": 2, "plots": False, "quiet": True, "evaluate_every": 0}
    ppo = small | {"environments": 2, "rollout_length": 8, "minibatch_size": 8, "seeds": 2}
    runs = [jaxrl_hier.train("ppo", "mujoco:InvertedPendulum-v5", out=tmp_path / name, **ppo) for name in "ab"]
    jax.tree.map(np.testing.assert_array_equal, *(run.state.params for run in runs))
    maml = small | {"outer": "adam", "meta_batch_size": 2, "episodes_per_task": 2, "horizon": 5, "hidden": (8,)}
    jaxrl_hier.train("maml", "mujoco:cheetah-direction", out=tmp_path / "maml", **maml)
    returns = jaxrl_hier.load(tmp_path / "maml").metrics()["return"]
    assert np.isfinite(returns).all()
    assert (returns < 0).all()  # a cheetah that falls about for five steps pays for its torques


def test_a_step_has_no_gradient_and_stops_none():
    """As MAML needs it: trajectories are data."""
    env = Locomotion("cheetah-velocity")
    task = env.default_params
    _, state = env.reset_env(jax.random.key(0), task)

    def loss(x):
        reward = env.step_env(jax.random.key(0), state, jax.lax.stop_gradient(x), task)[2]
        return jnp.sum(x) * jax.lax.stop_gradient(reward)

    reward = env.step_env(jax.random.key(0), state, jnp.zeros(6), task)[2]
    assert_close(jax.grad(loss)(jnp.zeros(6)), jnp.full(6, reward))


def test_bad_names_and_settings():
    for make, line in [
        (
            lambda: jaxrl_envs.make("mujoco:cheetah-speed"),
            "MuJoCo has no environment 'cheetah-speed'; nearest: cheetah",
        ),
        (lambda: jaxrl_envs.make("mujoco:halfcheetah"), "nearest: HalfCheetah-v5"),
        (lambda: Locomotion("HalfCheetah-v5"), "has no environment 'HalfCheetah-v5'"),
        (lambda: Mujoco("Ant-v5", limit=0), "limit must be at least one step, got 0"),
        (lambda: HostRobot("Ant-v5", threads=0), "threads must be at least 1, got 0"),
        (lambda: HostRobot("mine", make=lambda: None), "mine needs a limit, the steps of an episode"),
    ]:
        with pytest.raises(ValueError, match=line):
            make()


def test_a_state_is_drawn(monkeypatch):
    """Where Gymnasium itself can draw, which needs OpenGL."""
    if "DISPLAY" not in os.environ:
        monkeypatch.setenv("MUJOCO_GL", "egl")
    own = gymnasium.make("HalfCheetah-v5", render_mode="rgb_array")
    try:
        own.reset(seed=0)
        own.render()
    except Exception as error:
        pytest.skip(f"MuJoCo cannot draw here: {error}")
    env = Mujoco("HalfCheetah-v5")
    key = jax.random.key(0)
    _, state = env.reset_env(key, env.default_params)
    own.reset(seed=seed_of(key))
    expected = own.render()  # first: a second drawing takes the context from the first
    np.testing.assert_array_equal(env.render(state, env.default_params), expected)
