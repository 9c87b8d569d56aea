"""Environments of Gymnasium: what the host's rollout records, and learners that learn from it."""

from dataclasses import replace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import jaxrl_hier
from jaxrl_envs.goals import is_goal_env
from jaxrl_envs.tasks import single
from jaxrl_hier import api, host, host_training
from jaxrl_hier.checks import DivergedError, UsageError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.identity import Identity
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import Agent
from jaxrl_hier.flat import dqn, td3
from tests.rings import stored
from tests.sizes import SIZES

TINY = {
    "environments": 3,
    "rollout_length": 7,
    "updates": 2,
    "batch_size": 16,
    "hidden": (16,),
    "capacity": 1500,
    "warmup_steps": 60,
}
LIMIT = 10


class Line(gymnasium.Env):
    """A point on [−1, 1] that moves by a tenth of the action; the goal is a place on it, near enough within 0.15."""

    def __init__(self, terminate_at=None):
        box = lambda bound: gymnasium.spaces.Box(-bound, bound, (1,), np.float64)
        parts = {"observation": box(np.inf), "achieved_goal": box(1.0), "desired_goal": box(1.0)}
        self.observation_space = gymnasium.spaces.Dict(parts)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.distance_threshold, self.terminate_at = 0.15, terminate_at

    def compute_reward(self, achieved_goal, desired_goal, info):
        distance = np.linalg.norm(achieved_goal - desired_goal, axis=-1)
        return -(distance > self.distance_threshold).astype(np.float32)

    def observe(self):
        return {"observation": self.place.copy(), "achieved_goal": self.place.copy(), "desired_goal": self.goal}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.place = 0, np.zeros(1)
        self.goal = self.np_random.uniform(-0.9, 0.9, 1)
        return self.observe(), {}

    def step(self, action):
        self.time += 1
        self.place = np.clip(self.place + 0.3 * action, -1.0, 1.0)
        reward = self.compute_reward(self.place, self.goal, {})
        return self.observe(), reward, self.time == self.terminate_at, False, {"is_success": reward == 0}


def line(**settings):
    return gymnasium.wrappers.TimeLimit(Line(**settings), LIMIT)


def counting_agent():
    """Always moves up by one third of its range; its carry counts the steps of an episode."""

    def act(params, carry, inp, key, greedy):
        return jnp.full(1, 1 / 3), carry + 1, carry

    start = lambda params, key: jnp.zeros((), jnp.int32)
    return Agent(init=lambda key: (), start=start, act=act)


def test_spaces_and_reward_are_taken_over():
    env = host.HostEnv(line)
    assert is_goal_env(env)
    assert env.observation_space().spaces["observation"].dtype == np.float32
    assert env.default_params.max_steps_in_episode == LIMIT
    assert float(env.compute_reward(jnp.zeros(1), jnp.array([0.14]), env.default_params)) == 0.0
    assert float(env.compute_reward(jnp.zeros(1), jnp.array([0.16]), env.default_params)) == -1.0
    cart = host.HostEnv("CartPole-v1")
    assert not is_goal_env(cart)
    assert isinstance(cart.action_space(), spaces.Discrete)
    assert cart.default_params.max_steps_in_episode == 500


@pytest.mark.parametrize("terminate_at", [None, 4], ids=["time limit", "own end"])
def test_what_a_rollout_records(terminate_at):
    """True successors, first steps, carries and totals over the ends of episodes, against a count by hand."""
    env, count, length = host.HostEnv(line, terminate_at=terminate_at), 2, 13
    envs, agent = env.vector(count), counting_agent()
    try:
        world = begin_worlds(env, agent, single(env.default_params), (), jax.random.key(0), count)
        world = host_training.begin(env, envs, world, seed=3)
        world, seen = host_training.rollout(env, envs, host_training.actor(env, agent), (), world, length)
    finally:
        envs.close()
    episode = terminate_at or LIMIT
    time = np.arange(length) % episode  # of the episode before the step
    assert seen.obs["observation"].shape == (length, count, 1)
    for b in range(count):
        np.testing.assert_allclose(seen.obs["observation"][:, b, 0], np.minimum(0.1 * time, 1.0), atol=1e-6)
        np.testing.assert_allclose(seen.next_obs["achieved_goal"][:, b, 0], 0.1 * (time + 1), atol=1e-6)
        np.testing.assert_array_equal(seen.first[:, b], time == 0)
        np.testing.assert_array_equal(seen.extras[:, b], time)
        over = time == episode - 1
        np.testing.assert_array_equal(seen.terminated[:, b], over & (terminate_at is not None))
        np.testing.assert_array_equal(seen.truncated[:, b], over & (terminate_at is None))
    for t in range(length - 1):  # one goal for an episode, another for the next
        same = seen.obs["desired_goal"][t] == seen.obs["desired_goal"][t + 1]
        np.testing.assert_array_equal(same, np.full((count, 1), time[t] != episode - 1))
        np.testing.assert_array_equal(seen.next_obs["desired_goal"][t], seen.obs["desired_goal"][t])
    paid = jax.vmap(jax.vmap(lambda a, g: env.compute_reward(a, g, None)))(
        seen.next_obs["achieved_goal"], seen.next_obs["desired_goal"]
    )
    np.testing.assert_array_equal(seen.reward, paid)
    np.testing.assert_array_equal(seen.facts["success"], paid == 0)
    running = length - length // episode * episode
    np.testing.assert_array_equal(world.ep_length, running)
    np.testing.assert_allclose(world.ep_return, seen.reward[-running:].sum(axis=0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """DDPG with hindsight on the line, with its run folder."""
    config = td3.Config(
        **TINY | {"updates": 10, "batch_size": 64, "rollout_length": LIMIT, "capacity": 3000},
        critics=1,
        policy_delay=1,
        target_noise=0.0,
        her="future",
        discount=0.9,
        target_rate=0.05,
        reward_range=(-1.0, 0.0),
        random_actions=0.3,
        eval_episodes=15,
    )
    directory = tmp_path_factory.mktemp("host") / "run"
    run = RunConfig(iterations=120, log_every=10, checkpoint_every=60, evaluate_every=60, tensorboard=False, quiet=True)
    env = host.HostEnv(line)
    return (
        config,
        env,
        run,
        directory,
        host_training.train(td3.make, config, env, run, directory=directory, identity=Identity({"a": 1})),
    )


def test_hindsight_learns_on_the_host(trained):
    *_, directory, result = trained
    assert result.evaluation["success_at_end"].axes == ("seed", "episode")
    assert result.evaluation["success_at_end"].values.shape == (1, 15)
    assert result.evaluation["success_at_end"].values.mean() >= 0.9
    assert [row["iteration"] for row in result.rows] == [*range(10, 121, 10)]
    assert result.rows[-1]["env_steps"] == 120 * 30
    assert result.rows[-1]["episode_length"] == LIMIT
    assert result.rows[-1]["success_at_end"] > result.rows[0]["success_at_end"]
    assert sorted(path.name for path in (directory / "checkpoints").iterdir()) == ["120", "60"]


def test_memory_holds_what_was_seen(trained):
    config, *_, result = trained
    ring = jax.tree.map(lambda x: x[0], result.state.memory)
    each = config.warmup_steps // config.environments + 120 * config.rollout_length
    np.testing.assert_array_equal(ring.size, min(each, config.capacity // config.environments))
    steps = jax.tree.map(np.asarray, stored(ring))
    achieved = steps.next_obs["achieved_goal"]
    moved = np.clip(steps.obs["achieved_goal"] + 0.3 * steps.action, -1.0, 1.0)
    held = np.arange(achieved.shape[1]) < int(ring.size[0])
    np.testing.assert_allclose(achieved[:, held], moved[:, held], atol=1e-5)


def test_resume(trained):
    config, env, _, directory, _ = trained
    longer = RunConfig(iterations=150, log_every=25, checkpoint_every=25, tensorboard=False, quiet=True)
    more = host_training.train(
        td3.make, config, env, longer, directory=directory, identity=Identity({"a": 1}), resume=True
    )
    assert [row["iteration"] for row in more.rows] == [*range(10, 121, 10), 125, 150]  # 120 is no multiple of 25
    assert int(more.state.iteration[0]) == 150
    assert sorted(path.name for path in (directory / "checkpoints").iterdir()) == ["125", "150"]
    with pytest.raises(UsageError, match="is another run: a was 1 and is now 2"):
        host_training.train(
            td3.make, config, env, longer, directory=directory, identity=Identity({"a": 2}), resume=True
        )


def test_parameters_that_are_not_finite_stop_the_run_and_are_not_saved(tmp_path):
    def make(*args):
        algorithm = td3.make(*args)

        def learn(state, world, transitions):
            state, metrics = algorithm.learn(state, world, transitions)
            spoilt = jax.tree.map(lambda x: jnp.where(state.iteration == 3, jnp.nan, x), state.params)
            return state.replace(params=spoilt), metrics

        return algorithm._replace(learn=learn)

    run = RunConfig(iterations=5, checkpoint_every=1, tensorboard=False, quiet=True)
    kept = r"params is not finite at iteration 3 \(seed 0\); the checkpoint of iteration 2 is kept"
    with pytest.raises(DivergedError, match=kept):
        host_training.train(make, td3.Config(**TINY), host.HostEnv(line), run, directory=tmp_path / "run")
    assert checkpoint.iterations(tmp_path / "run") == [1, 2]
    skip = replace(run, on_nan="skip")
    result = host_training.train(make, td3.Config(**TINY), host.HostEnv(line), skip)
    assert [row["left_out"] for row in result.rows] == [0, 0, 1, 0, 0]
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(result.state.params))


def test_by_name_with_discrete_actions_and_early_ends(tmp_path):
    settings = TINY | {"eval_episodes": 2, "iterations": 6, "log_every": 3, "checkpoint_every": 6, "evaluate_every": 0}
    out = tmp_path / "run"
    result = jaxrl_hier.train("dqn", "gymnasium:CartPole-v1", out=out, tensorboard=False, quiet=True, **settings)
    assert result.evaluation.keys() == {"return", "length"}
    np.testing.assert_array_equal(result.evaluation["return"].values, result.evaluation["length"].values)
    assert "success_at_end" not in result.rows[-1]
    iteration, again = api.evaluate(out)
    assert iteration == 6
    np.testing.assert_array_equal(again["return"].values, result.evaluation["return"].values)
    assert any(path.suffix == ".png" for path in (out / "plots").iterdir())


def test_a_learner_from_rollouts_learns_on_the_host():
    """What it has seen of rewards and observations are all steps of its rollouts, and no warm-up."""
    both = {"normalize_observations": True, "normalize_rewards": True}
    run = {"iterations": 20, "log_every": 20, "checkpoint_every": 20, "evaluate_every": 0, "quiet": True}
    result = jaxrl_hier.train("ppo", "gymnasium:CartPole-v1", **SIZES["ppo"] | both | run)
    steps = 20 * SIZES["ppo"]["environments"] * SIZES["ppo"]["rollout_length"]
    assert (
        result.rows[-1]["env_steps"] == result.state.learner.rewards.steps == result.state.params.inputs.steps == steps
    )
    assert result.rows[-1]["return"] == result.rows[-1]["episode_length"]
    assert result.evaluation["return"].values.shape == (1, SIZES["ppo"]["eval_episodes"])


def test_runs_of_neighbouring_seeds_share_no_seed_of_gymnasium(monkeypatch):
    """Whose environments add their number to a run's: also in a resumed run and in evaluations."""
    begin, given = host_training.begin, []

    def noted(env, envs, world, seed):
        given.extend(range(seed, seed + envs.num_envs))
        return begin(env, envs, world, seed)

    monkeypatch.setattr(host_training, "begin", noted)
    for seed in range(3):
        jaxrl_hier.train("ppo", "gymnasium:CartPole-v1", iterations=1, seed=seed, quiet=True, **SIZES["ppo"])
    assert len(given) == len(set(given)) > 3 * SIZES["ppo"]["environments"]


def test_bad_input():
    with pytest.raises(UsageError, match="Gymnasium cannot make 'NoSuchThing-v0'"):
        host.HostEnv("NoSuchThing-v0")
    with pytest.raises(UsageError, match="Line has no time limit, which episodes need: wrap it in gymnasium's"):
        host.HostEnv(Line)
    with pytest.raises(UsageError, match=r"need: give HostEnv\('CliffWalking-v1', max_episode_steps=…\)"):
        host.HostEnv("CliffWalking-v1")
    assert host.HostEnv("CliffWalking-v1", max_episode_steps=99).default_params.max_steps_in_episode == 99
    with pytest.raises(UsageError, match="compute_reward differs from the environment's own on"):
        host.HostEnv(line, lambda achieved, desired: -jnp.linalg.norm(achieved - desired))
    with pytest.raises(UsageError, match="observations of X are Discrete"):
        host._converted(gymnasium.spaces.Discrete(3, start=1), "observations of X")
    with pytest.raises(UsageError, match=r"actions of X are MultiDiscrete\(.*\); supported are Box, Discrete,"):
        host._converted(gymnasium.spaces.MultiDiscrete([2, 3]), "actions of X")
    env = host.HostEnv(line)
    with pytest.raises(UsageError, match="DQN needs"):
        host_training.train(dqn.make, dqn.Config(), env, RunConfig())
