"""Environments as Gymnasium's: its own checker, and the jitted environment played beside them with the same keys."""

import re
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnax.environments import spaces
from gymnax.wrappers.purerl import GymnaxWrapper

import jaxrl_envs
from jaxrl_envs import Tasks, to_gymnasium
from jaxrl_envs.gymnasium_env import as_gymnasium
from tests.close import assert_close
from tests.line import Line

# one of each class; the others differ in sizes and numbers
NAMES = [
    "navigation2d",
    "navigation2d-unnormalised",
    "navigation2d-corners",
    "navigation2d-sparse",
    "point-robot",
    "sparse-point-robot",
    "sinusoid",
    "four-rooms",
    "four-rooms-goals",
    "bit-flipping-5",
    "point-reach",
    "point-push",
    "point-maze",
    "point-gather",
    "taxi",
    "bandit-n10-k5",
    "bandit-restless",
    "tabular-mdp",
    "maze-small",
    "treasure",
    "t-maze",
    "non-match",
    "water-maze",
    "two-step",
    "landmarks",
    "moving-mass",
    "parr-maze",
    "goal-grid",
    "grid-navigation",
    "two-colours",
    "harlow",
    "grid-mazes",
]


@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
@pytest.mark.parametrize("name", [*NAMES, "Pendulum-v1"])
def test_gymnasium_finds_nothing_wrong(name):
    check_env(to_gymnasium(*jaxrl_envs.make(name)), skip_render_check=True)


def test_every_name_has_spaces_of_gymnasium():
    made = {name: jaxrl_envs.make(name) for name in jaxrl_envs.names()}
    assert {type(env) for env, _ in made.values()} == {type(made[name][0]) for name in NAMES}
    for env, tasks in made.values():
        played = to_gymnasium(env, tasks)
        for ours, theirs in (("action_space", played.action_space), ("observation_space", played.observation_space)):
            assert_same_space(getattr(env, ours)(env.default_params), theirs)


def assert_same_space(ours, theirs):
    if isinstance(ours, spaces.Dict):
        assert set(ours.spaces) == set(theirs)
        for name, part in ours.spaces.items():
            assert_same_space(part, theirs[name])
    elif isinstance(ours, spaces.Discrete):
        assert (theirs.n, theirs.start) == (ours.n, 0)
    else:
        assert (theirs.shape, theirs.dtype) == (tuple(ours.shape), jax.dtypes.canonicalize_dtype(ours.dtype))
        assert np.all(theirs.low == np.asarray(ours.low, theirs.dtype))
        assert np.all(theirs.high == np.asarray(ours.high, theirs.dtype))


def test_bounds_of_integers_and_tuples_and_what_gymnasium_does_not_have():
    space = as_gymnasium(spaces.Box(-jnp.inf, 7, (2,), jnp.int8))
    assert (space.low.tolist(), space.high.tolist(), space.dtype) == ([-128, -128], [7, 7], np.int8)
    both = as_gymnasium(spaces.Tuple((spaces.Discrete(3), spaces.Box(0.0, 1.0, (1,)))))
    assert isinstance(both, gymnasium.spaces.Tuple)
    with pytest.raises(ValueError, match="Gymnasium has no space like <object"):
        as_gymnasium(object())


@pytest.mark.parametrize("name", ["four-rooms-goals", "navigation2d", "bandit-n10-k5", "point-push", "taxi-fickle"])
def test_episodes_are_those_of_the_jitted_environment(name):
    """Two resets and their steps, with tasks that are kept or redrawn, by the keys that the docstring names."""
    env, tasks = jaxrl_envs.make(name)
    played = to_gymnasium(env, tasks)
    reset, step, sample = jax.jit(env.reset_env), jax.jit(env.step_env), jax.jit(tasks.sample)
    truncated_at = jax.jit(env.is_truncated)
    key, task = jax.random.key(7), None
    rng = np.random.default_rng(0)
    for episode in range(2):
        obs, info = played.reset(seed=7) if episode == 0 else played.reset()
        key, key_task, key_reset = jax.random.split(key, 3)
        if task is None or tasks.resample == "episode":
            task = jax.tree.map(jnp.asarray, sample(key_task))
        wanted, state = reset(key_reset, task)
        assert info == {}
        assert_same(obs, wanted)
        for _ in range(12):
            action = random_action(played.action_space, rng)
            obs, reward, terminated, truncated, info = played.step(action)
            key, key_step = jax.random.split(key)
            wanted, state, paid, end, told = step(key_step, state, jnp.asarray(action), task)
            assert_same((obs, reward), (wanted, paid))
            assert (terminated, truncated) == (bool(end), bool(truncated_at(state, task)) and not bool(end))
            assert type(terminated) is type(truncated) is bool
            assert set(told) <= set(info) <= {*told, "is_success"}
            assert_same({name: info[name] for name in told}, told)
            if terminated or truncated:
                break
        assert_same(played.task, task)


def random_action(space, rng):
    if isinstance(space, gymnasium.spaces.Discrete):
        return rng.integers(space.n, dtype=np.int32)
    return rng.uniform(np.maximum(space.low, -1), np.minimum(space.high, 1)).astype(space.dtype)


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(jax.tree.map(lambda x: x, wanted))
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        assert_close(np.asarray(x), np.asarray(y), 1e-6)  # XLA may fuse, and so round, two programs differently


def counting_tasks(resample="never"):
    """Lines whose target counts the episodes."""
    new = Line().default_params.replace
    following = lambda key, task: task.replace(target=task.target + 1.0)
    return Tasks(sample=lambda key: new(target=jnp.zeros(())), resample=following if resample == "next" else resample)


def test_tasks_follow_one_another_as_the_distribution_says():
    targets = {}
    for resample in ("never", "next"):
        env = to_gymnasium(Line(), counting_tasks(resample))
        env.reset(seed=0)
        found = [float(env.task.target)]
        for options in (None, {"task": Line().default_params.replace(target=5.0)}, {}):
            env.reset(options=options)
            found.append(float(env.task.target))
        env.reset(seed=0)
        targets[resample] = [*found, float(env.task.target)]
    assert targets == {"never": [0, 0, 5, 5, 0], "next": [0, 1, 5, 6, 0]}


def test_seeds_begin_everything_again():
    env = to_gymnasium(*jaxrl_envs.make("navigation2d"))
    env.reset(seed=3)
    goal = np.asarray(env.task.goal)
    env.reset()
    np.testing.assert_array_equal(env.task.goal, goal)  # kept for good
    env.reset(seed=4)
    assert not np.array_equal(env.task.goal, goal)
    env.reset(seed=3)
    np.testing.assert_array_equal(env.task.goal, goal)


def test_a_time_limit_truncates_and_then_a_reset_is_needed():
    env = to_gymnasium(Line(discrete=False))
    with pytest.raises(ResetNeeded, match="call reset before the first step"):
        env.step(np.zeros(1, np.float32))
    env.reset()
    flags = [env.step(np.array([5.0]))[2:4] for _ in range(5)]  # beyond the bound of 1, which it is clipped to
    assert flags == [(False, False)] * 4 + [(False, True)]
    assert float(env.state.x) == pytest.approx(0.5)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(1, np.float32))


def test_goals_are_rewarded_as_in_gymnasium_robotics():
    env = to_gymnasium(*jaxrl_envs.make("point-reach"))
    obs, _ = env.reset(seed=0)
    wanted = obs["desired_goal"]
    seen = [env.step(env.action_space.sample()) for _ in range(4)]
    achieved = np.stack([step[0]["achieved_goal"] for step in seen])
    rewards = env.compute_reward(achieved, np.stack([wanted] * 4), [step[4] for step in seen])
    assert rewards.dtype == np.float32
    assert rewards.tolist() == [step[1] for step in seen]
    assert env.compute_reward(achieved[0], wanted, {}) == seen[0][1]
    assert env.compute_reward(achieved[:, None], achieved[:, None], {}).tolist() == [[0.0]] * 4  # where it is
    assert all(step[4]["is_success"] == step[4]["success"] == (step[1] == 0) for step in seen)
    assert not hasattr(to_gymnasium(Line()), "compute_reward")


class Tenfold(GymnaxWrapper):
    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, truncated, info = self._env.step(key, state, action, params)
        return obs, state, 10 * reward, terminated, truncated, info


def test_rewards_of_goals_behind_a_wrapper_are_its_own_or_refused():
    env, tasks = jaxrl_envs.make("bit-flipping-5")
    inside = to_gymnasium(Tenfold(env), tasks)
    obs, _ = inside.reset(seed=0)
    assert inside.step(0)[1] == -10
    with pytest.raises(ValueError, match="stepped by a wrapper, which may pay otherwise than"):
        inside.compute_reward(obs["achieved_goal"], obs["desired_goal"])
    own = type("Own", (Tenfold,), {"compute_reward": lambda self, *x: 10 * self._env.compute_reward(*x)})
    assert to_gymnasium(own(env), tasks).compute_reward(obs["achieved_goal"], obs["desired_goal"]) == -10


def test_pictures():
    env = to_gymnasium(*jaxrl_envs.make("four-rooms"), render_mode="rgb_array")
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=0)
    picture = env.render()
    assert (picture.dtype, picture.ndim, picture.shape[-1]) == (np.uint8, 3, 3)
    before = env.played.render(env.state, env.task)
    np.testing.assert_array_equal(picture, before)
    assert to_gymnasium(Line()).render() is None


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda env: env.reset(options={"goal": 1}), "the one option of reset is 'task', got 'goal'"),
        (
            lambda env: env.reset(options={"task": 1.0}),
            r"options\['task'\] is float, it must be Params, as tasks.sample gives it",
        ),
        (
            lambda env: env.reset(options={"task": Line().default_params.replace(target=np.zeros(3, np.float32))}),
            r"options\['task'\]: target is float32\[3\], it must be a scalar, float32",
        ),
        (lambda env: env.step(2), r"an action must be of Discrete\(2\), got 2"),
        (lambda env: env.step(0.5), r"an action must be of Discrete\(2\), got 0.5"),
        (lambda env: to_gymnasium(Line(), render_mode="rgb_array"), "must be None, since it has no method render"),
        (
            lambda env: to_gymnasium(jaxrl_envs.make("taxi")[0], render_mode="human"),
            "render_mode of Taxi.* must be 'rgb_array' or None, got 'human'",
        ),
    ],
)
def test_what_cannot_be_is_said(use, message):
    env = to_gymnasium(Line())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        use(env)


def test_actions_of_a_box_have_its_shape_and_are_numbers():
    env = to_gymnasium(Line(discrete=False))
    env.reset(seed=0)
    for action in (np.zeros(2), 0.0, [np.nan], ["up"]):
        with pytest.raises(ValueError, match=r"an action must be of Box\("):
            env.step(action)


def test_the_package_needs_none_of_the_algorithms():
    for path in Path(jaxrl_envs.__file__).parent.glob("*.py"):
        assert not re.search(r"^\s*(import|from) jaxrl_hier", path.read_text(), re.MULTILINE), path
