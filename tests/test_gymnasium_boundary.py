"""What Gymnasium's environments return and are given: converted, or refused in one line."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces, wrappers

from jaxrl_envs.tasks import single
from jaxrl_hier import host, host_training
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine import train as engine
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.flat import dqn, sac, td3
from jaxrl_hier.gymnasium_boundary import Converted, time_limit
from tests.compiling import needs_float16

LIMIT = 20
TINY = {"environments": 1, "rollout_length": 2, "updates": 1, "batch_size": 4, "hidden": (4,), "capacity": 100}
TINY |= {"warmup_steps": 4}


class Scripted(gymnasium.Env):
    """Returns what it is told to; records the actions that it gets."""

    def __init__(self, observation_space=None, action_space=None, reset=None, step=None):
        self.observation_space = observation_space or spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = action_space or spaces.Discrete(2)
        self.returned = {
            "reset": (np.zeros(2, np.float32), {}) if reset is None else reset,
            "step": (np.zeros(2, np.float32), 1.0, False, False, {}) if step is None else step,
        }
        self.got = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.returned["reset"]

    def step(self, action):
        self.got.append(action)
        return self.returned["step"]


def step_of(obs=None, reward=1.0, terminated=False, truncated=False, info=None):
    return np.zeros(2, np.float32) if obs is None else obs, reward, terminated, truncated, {} if info is None else info


# Time limits


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.RescaleAction(env, np.float32(-2), np.float32(2)),
        wrappers.RecordEpisodeStatistics,
        wrappers.FlattenObservation,
        wrappers.OrderEnforcing,
        wrappers.ClipAction,
        lambda env: wrappers.TransformReward(wrappers.OrderEnforcing(env), lambda reward: 2 * reward),
    ],
    ids=["rescale", "statistics", "flatten", "order", "clip", "two"],
)
def test_a_time_limit_is_found_under_wrappers(wrap):
    """Of an environment that is not registered: nobody but the wrapper knows."""
    box = spaces.Box(-1, 1, (1,), np.float32)
    env = host.HostEnv(lambda: wrap(wrappers.TimeLimit(Scripted(action_space=box), LIMIT)))
    assert env.default_params.max_steps_in_episode == LIMIT
    assert env.name == "Scripted"
    assert time_limit(wrappers.TimeLimit(wrap(wrappers.TimeLimit(Scripted(action_space=box), LIMIT)), 7)) == 7
    assert time_limit(wrappers.TimeLimit(wrap(wrappers.TimeLimit(Scripted(action_space=box), 7)), LIMIT)) == 7


class Adapter(gymnasium.Env):
    """A wrapper of one's own, which does not inherit from Gymnasium's."""

    def __init__(self, env):
        self.env, self.action_space, self.observation_space = env, env.action_space, env.observation_space
        self.reset, self.step = env.reset, env.step


def specified():
    """Only its specification knows the limit."""
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.spec = gymnasium.envs.registration.EnvSpec("Specified-v0", max_episode_steps=8)
    return env


def test_other_places_of_a_time_limit():
    assert time_limit(Adapter(wrappers.TimeLimit(Scripted(), LIMIT))) == LIMIT
    assert time_limit(gymnasium.make("CartPole-v1")) == 500
    assert time_limit(wrappers.RecordEpisodeStatistics(gymnasium.make("CartPole-v1", max_episode_steps=9))) == 9
    assert time_limit(specified()) == 8
    assert time_limit(Adapter(wrappers.RecordEpisodeStatistics(specified()))) == 8

    class Circle(Scripted):
        env = property(lambda self: self)

    assert time_limit(Circle()) is None
    with pytest.raises(UsageError, match="Scripted has no time limit, which episodes need: wrap it in gymnasium's"):
        host.HostEnv(lambda: wrappers.RecordEpisodeStatistics(Scripted()))
    with pytest.raises(UsageError, match="returns NoneType"):
        host.HostEnv(lambda: None)


# What it returns


KINDS = {
    "as it is": lambda x: x,
    "array": np.asarray,
    "array of one": lambda x: np.array([x]),
    "int64": np.int64,
    "int": int,
    "float32": np.float32,
}


@pytest.mark.parametrize("one", KINDS.values(), ids=KINDS)
def test_flags_and_rewards_are_numbers_of_any_kind(one):
    for terminated, truncated in ((0, 0), (1, 0), (0, 1), (1, 1)):
        returned = step_of(reward=one(1), terminated=one(terminated), truncated=one(truncated))
        _, reward, over, cut, _ = Converted(Scripted(step=returned)).step(0)
        assert (reward, over, cut) == (1.0, bool(terminated), bool(truncated and not terminated))  # never both
        assert (type(reward), type(over), type(cut)) == (float, bool, bool)


@pytest.mark.parametrize(
    ("space", "obs", "expected"),
    [
        (spaces.Box(-1, 1, (2,), np.float64), np.array([0.1, 1.0]), np.float32([0.1, 1.0])),
        (spaces.Box(0, 1, (2,), np.float32), np.array([True, False]), np.float32([1, 0])),
        (spaces.Box(0, 1, (2,), bool), np.array([True, False]), np.array([True, False])),
        (spaces.Box(0, 255, (2, 2, 3), np.uint8), np.full((2, 2, 3), 7), np.full((2, 2, 3), 7, np.uint8)),
        (spaces.Box(0, 255, (2,), np.uint8), [3.0, 4.0], np.uint8([3, 4])),
        (spaces.Box(-1, 1, (2,), np.float32), (0, 1), np.float32([0, 1])),
        (spaces.Box(-1, 1, (), np.float32), 0.5, np.float32(0.5)),
        (spaces.Discrete(3), np.array([2]), 2),
        (spaces.Discrete(3, start=-1), -1, 0),
        (spaces.Discrete(3, start=5), np.int64(7), 2),
    ],
)
def test_observations_get_the_dtype_of_their_space(space, obs, expected):
    env = Converted(Scripted(observation_space=space, reset=(obs, {}), step=step_of(obs)))
    for found in (env.reset()[0], env.step(0)[0]):
        np.testing.assert_array_equal(found, expected)
        assert np.asarray(found).dtype == np.asarray(expected).dtype


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (step_of(reward=np.nan), "Scripted: a reward is nan, it must be a finite number"),
        (step_of(reward=-np.inf), "a reward is -inf"),
        (step_of(reward=1e300), "a reward is 1e"),
        (step_of(reward=np.ones(2)), r"the reward is float64\[2\], it must be one number"),
        (step_of(reward=None), "the reward is None"),
        (step_of(reward="1"), "the reward is '1'"),
        (step_of(terminated=None), "terminated is None, it must be one number"),
        (step_of(truncated=2), "truncated is 2, it must be True or False"),
        (step_of(terminated=np.array([True, False])), r"terminated is bool\[2\]"),
        (step_of(obs=np.zeros(3, np.float32)), r"the observation is float32\[3\], its space says float32\[2\]"),
        (step_of(obs=np.array([0.0, np.nan])), "the observation holds nan"),
        (step_of(obs=np.array([0.0, 1e300])), "the observation holds 1e"),
        (step_of(obs=None)[:4], "step returns .* this one 4 values"),
        (step_of(obs={"a": 1}), "the observation is {'a': 1}, its space says"),
        (step_of(obs=[[1.0], [1.0, 2.0]]), "the observation is .*, its space says"),
        (7, "this one one int"),
    ],
)
def test_what_cannot_be_taken_is_said_in_one_line(returned, message):
    with pytest.raises(UsageError, match=message) as error:
        Converted(Scripted(step=returned)).step(0)
    assert "\n" not in str(error.value)


def test_other_refusals():
    with pytest.raises(UsageError, match=r"reset returns \(observation, info\), this one one ndarray"):
        Converted(Scripted(reset=np.zeros(2))).reset()
    with pytest.raises(UsageError, match="holds numbers that are not of uint8"):
        Converted(Scripted(spaces.Box(0, 255, (1,), np.uint8), step=step_of(np.array([0.5])))).step(0)
    with pytest.raises(UsageError, match="the observation is 3, outside of"):
        Converted(Scripted(spaces.Discrete(3), step=step_of(3))).step(0)
    goals = spaces.Dict({"observation": spaces.Box(-1, 1, (1,), np.float32)})
    with pytest.raises(UsageError, match="the observation is a dict of achieved, its space says observation"):
        Converted(Scripted(goals, step=step_of({"achieved": 0.0}))).step(0)
    with pytest.raises(UsageError, match=r"the observation\['observation'\] is float64\[2\]"):
        Converted(Scripted(goals, step=step_of({"observation": np.zeros(2)}))).step(0)


@pytest.mark.parametrize(
    ("info", "success"),
    [
        ({}, {}),
        ({"is_success": np.float32(1)}, {"success": True}),
        ({"success": np.array([0])}, {"success": False}),
        ({"is_success": False, "success": True}, {"success": False}),
        ({"is_success": None, "steps": np.arange(3)}, {}),
        (None, {}),
    ],
)
def test_success(info, success):
    assert Converted(Scripted(step=(*step_of()[:4], info))).step(0)[4] == success


# What it is given


@pytest.mark.parametrize("start", [0, 1, -2])
def test_discrete_actions_are_integers_counted_from_the_start(start):
    env = Scripted(action_space=spaces.Discrete(3, start=start))
    for action in (0, np.int64(1), np.array(2), jnp.int32(2)):
        Converted(env).step(action)
    assert env.got == [start, start + 1, start + 2, start + 2]
    assert {type(action) for action in env.got} == {int}


class Odd(gymnasium.Env):
    """Actions from 1, observations from −1, rewards [1], flags as integers, an array in info that grows."""

    action_space, observation_space = spaces.Discrete(2, start=1), spaces.Discrete(3, start=-1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.paid = 0, self.np_random.random()
        return -1, {}

    def step(self, action):
        assert type(action) is int
        assert action in (1, 2)
        self.time += 1
        reward = np.array([self.paid if action == 1 else 0.0])
        return np.int64(self.time % 3 - 1), reward, int(self.time == 6), 0, {"path": np.zeros(self.time)}


def learn(out=None, iterations=4, **more):
    """DQN on it, with a checkpoint and an evaluation every two iterations."""
    env = host.HostEnv(lambda: wrappers.TimeLimit(Odd(), LIMIT))
    config = dqn.Config(**{**TINY, "environments": 2, "rollout_length": 6}, eval_episodes=2)
    every = {"log_every": 2, "checkpoint_every": 2, "evaluate_every": 2}
    run = RunConfig(iterations=iterations, **every, tensorboard=False, quiet=True)
    return host_training.train(dqn.make, config, env, run, directory=out, **more)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    out = tmp_path_factory.mktemp("odd") / "run"
    return out, learn(out)


def test_a_learner_on_shifted_spaces_with_odd_returns(learned):
    _, result = learned
    assert result.rows[-1]["episode_length"] == 6.0
    assert 0 < result.rows[-1]["return"] < 6
    np.testing.assert_array_equal(result.evaluation["length"].values, 6.0)
    assert np.isfinite(result.evaluation["return"].values).all()


def test_an_episode_is_cut_at_the_limit_that_only_the_specification_says():
    env = host.HostEnv(specified)
    algorithm = td3.make(td3.Config(**TINY | {"warmup_steps": 0}), env, single(env.default_params))
    params, envs = algorithm.agent.init(jax.random.key(0)), env.vector(1)
    world = begin_worlds(env, algorithm.agent, single(env.default_params), params, jax.random.key(0), 1)
    world = host_training.begin(env, envs, world, 0)
    _, seen = host_training.rollout(env, envs, host_training.actor(env, algorithm.agent), params, world, 20)
    assert np.flatnonzero(seen.truncated[:, 0]).tolist() == [7, 15]


# Actions inside their space


class Strict(gymnasium.Env):
    """Refuses actions of another dtype or outside of its space."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, low, high, dtype):
        self.action_space, self.seen = spaces.Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype), []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        if action.dtype != self.action_space.dtype or not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        return np.ones(1, np.float32), 1.0, False, False, {}


STRICT = {  # bounds, one box for each dimension
    np.float64: (
        [-0.1, 0.0, 0.1, -0.3, -0.6, 0.1 + 1e-12, -1e300, 2.0],
        [0.1, 0.1, 0.7, 1.1, 0.1, 0.1 + 2e-12, 1e300, 2.0],
    ),
    np.float32: ([-1, 0, 0.1, -0.3, -0.6, 1e-39, -3e38, 2], [1, 0.1, 0.7, 1.1, 0.1, 2e-39, 3e38, 2]),
    np.float16: ([-0.1, 0, 0.1, -0.3], [0.1, 0.1, 0.7, 1.1]),
    np.int32: ([-3, 0, 5], [4, 1, 5]),
}


@pytest.mark.parametrize(
    "dtype",
    [pytest.param(dtype, marks=[needs_float16] * (dtype == np.float16)) for dtype in STRICT],
    ids=lambda dtype: dtype.__name__,
)
def test_an_actor_at_its_bounds_stays_inside(dtype):
    env = host.HostEnv(lambda: wrappers.TimeLimit(Strict(*STRICT[dtype], dtype), LIMIT))
    algorithm = td3.make(td3.Config(**TINY | {"warmup_steps": 0}), env, single(env.default_params))
    agent, envs = algorithm.agent, env.vector(2)
    params = agent.init(jax.random.key(0))
    world = begin_worlds(env, agent, single(env.default_params), params, jax.random.key(0), 2)
    play = lambda act, params: host_training.rollout(
        env, envs, act, params, host_training.begin(env, envs, world, 0), 4
    )[1]
    act, (low, high) = host_training.actor(env, agent, greedy=True), np.asarray(STRICT[dtype], np.float64)
    for sign, end in ((1e6, high), (-1e6, low)):
        last = params.actor["params"]["Dense_1"]
        far = {"params": params.actor["params"] | {"Dense_1": last | {"bias": jnp.full_like(last["bias"], sign)}}}
        action = np.asarray(play(act, params._replace(actor=far)).action, np.float64)
        eps = np.finfo(np.float16 if dtype == np.float16 else np.float32).eps
        reached = np.abs(action - np.clip(end, -3.4e38, 3.4e38)) <= 2 * eps * np.maximum(abs(low), abs(high))
        assert reached.all() or dtype == np.float32  # 1e-39 and 2e-39 are zero to JAX
    draws = play(host_training.actor(env, agent, uniform=True), params).action
    if dtype == np.float64:  # what is recorded is float32, and within the bounds where there is such a number
        recorded = draws[..., [0, 1, 2, 3, 4, 7]].astype(np.float64)
        assert ((recorded >= low[[0, 1, 2, 3, 4, 7]]) & (recorded <= high[[0, 1, 2, 3, 4, 7]])).all()


@pytest.mark.parametrize("module", [td3, sac])
def test_open_boxes_are_refused(module):
    for low, high in ((-np.inf, np.inf), (0, np.inf), (-np.inf, 1)):

        def strict(low=low, high=high):
            return wrappers.TimeLimit(Strict([low], [high], np.float64), LIMIT)

        env = host.HostEnv(strict)
        with pytest.raises(UsageError, match="needs bounded actions; the bounds of Strict are infinite"):
            module.make(module.Config(**TINY), env, single(env.default_params))


# Killed runs


@pytest.mark.parametrize(("module", "name"), [(engine, "save_evaluation"), (host_training, "evaluate")])
def test_killed_between_a_checkpoint_and_its_evaluation(learned, tmp_path, monkeypatch, module, name):
    """One order in both loops: `tests/engine/test_killed_runs.py` tries all moments in the other."""
    whole = load_evaluations(learned[0])
    assert list(whole) == [2, 4]

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        with pytest.raises(KeyboardInterrupt):
            learn(tmp_path / "run")
    assert checkpoint.iterations(tmp_path / "run") == [2]
    assert load_evaluations(tmp_path / "run") == {}
    learn(tmp_path / "run", resume=True)
    again = load_evaluations(tmp_path / "run")
    assert list(again) == [2, 4]
    for quantity in ("return", "length"):
        np.testing.assert_array_equal(again[2][quantity].values, whole[2][quantity].values)
