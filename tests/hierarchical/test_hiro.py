"""HIRO: the goal correction against enumeration in NumPy, goals along episodes, sampled segments, and terminations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs.point_tasks import PointGather
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import replay as memory
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import Tasks
from jaxrl_hier.flat import td3
from jaxrl_hier.hierarchical import hiro
from jaxrl_hier.pictures import Trained
from jaxrl_hier.pictures import hiro as hiro_pictures
from tests.close import assert_close
from tests.compiling import quick_jit
from tests.rings import stored

C, REACH, SCALE = 4, 5.0, 0.1
SETTINGS = {
    "goal_horizon": C,
    "goal_range": REACH,
    "reward_scale": SCALE,
    "hidden": (8,),
    "batch_size": 64,
    "environments": 3,
    "rollout_length": 5,
    "manager_updates": 2,
    "worker_update_ratio": 3,
    "capacity": 180,
    "warmup_steps": 90,
    "random_goals": 0.3,
    "eval_episodes": 2,
}


class Ending(PointGather):
    """Gather with episodes that terminate after 19 steps, before the time limit of 60."""

    def is_terminated(self, state, params):
        return state.time >= 19

    def step_env(self, key, state, action, params):
        obs, state, reward, _, info = super().step_env(key, state, action, params)
        return obs, state, reward - jnp.abs(obs[0]), self.is_terminated(state, params), info


def worlds(kind):
    """An environment and tasks whose episodes are no multiple of c long."""
    if kind == "ending":
        env = Ending()
        return env, Tasks(sample=lambda key: env.default_params.replace(max_steps_in_episode=60))
    env, tasks = jaxrl_envs.make("point-maze-push")
    return env, Tasks(sample=lambda key: tasks.sample(key).replace(max_steps_in_episode=18))


def sampler(kind, **settings):
    """A compiled function: params, ring, places, key -> batches for an update, with some settings changed."""
    env, _ = worlds(kind)
    config = hiro.Config(**SETTINGS | settings)
    inputs, worker = hiro.inputs_of(config, env), hiro.actor_critics(config, env).worker

    @quick_jit
    def sample(params, ring, places, key):
        return hiro.sample_batches(config, inputs, partial(worker.policy, params.worker), ring, places, key)

    return sample


class Case:
    """An algorithm after a few iterations."""

    def __init__(self, kind):
        self.kind = kind
        self.env, self.tasks = worlds(kind)
        self.config = hiro.Config(**SETTINGS)
        self.algorithm, self.sampler = hiro.make(self.config, self.env, self.tasks), sampler(kind)
        state, step = quick_jit(self.algorithm.init)(jax.random.key(0)), quick_jit(self.algorithm.step)
        for _ in range(20):  # the buffer wraps around
            state, self.metrics = step(state)
        self.state = state

    def sample(self, seed=1, sampler=None):
        key = jax.random.key(seed)
        places = memory.draw(self.state.memory, key, self.config.worker_update_ratio * self.config.batch_size)
        return places, (sampler or self.sampler)(self.state.params, self.state.memory, places, key)


@pytest.fixture(scope="module", params=["ending", "limit"])
def case(request):
    return Case(request.param)


def place(obs):
    return np.asarray(obs["observation"] if isinstance(obs, dict) else obs)[..., :2]


# Goals


def test_goals_along_episodes(case):
    """There is a new goal within range every c steps; in between it points at the same place."""
    params, agent = case.state.params, case.algorithm.agent
    begin = begin_worlds(case.env, agent, case.tasks, params, jax.random.key(3), 2)
    _, seen = quick_jit(partial(rollout, case.env, agent, case.tasks, length=60))(params, begin)
    seen = jax.tree.map(np.asarray, seen)
    goal, age, s, first = seen.extras.goal, seen.extras.age, place(seen.obs), seen.first
    for b in range(2):
        for t in range(60):
            if first[t, b]:
                time = 0
            assert age[t, b] == time % C
            if time % C:
                assert_close(goal[t, b], s[t - 1, b] + goal[t - 1, b] - s[t, b], scale=REACH)
            else:
                assert (np.abs(goal[t, b]) <= REACH).all()
            time += 1
    fresh = goal[age == 0]
    assert len(np.unique(fresh, axis=0)) == len(fresh)  # noise


def test_greedy_steps_are_those_of_both_networks(case):
    """New goals are the manager's and actions the worker's for the goal of the step, both without noise."""
    params, agent = jax.tree.map(np.asarray, case.state.params), case.algorithm.agent
    begin = begin_worlds(case.env, agent, case.tasks, params, jax.random.key(4), 2)
    _, seen = jax.jit(partial(rollout, case.env, agent, case.tasks, length=12, greedy=True))(params, begin)
    seen = jax.tree.map(np.asarray, seen)
    flat = isinstance(seen.obs, dict)
    state = seen.obs["observation"] if flat else seen.obs
    inputs = np.concatenate([state, seen.obs["desired_goal"]], axis=-1) if flat else state
    fresh = seen.extras.age == 0
    assert_close(seen.extras.goal[fresh], REACH * network(params.manager, inputs[fresh]), 1e-4)
    unit = network(params.worker, np.concatenate([state[..., 2:], seen.extras.goal / REACH], axis=-1))
    assert_close(seen.action, unit, 1e-4)


def test_some_episodes_begin_with_goals_from_anywhere(case):
    """In a share of the episodes goals are random at first, for a uniformly random part of the time limit."""
    algorithm = hiro.make(
        hiro.Config(**SETTINGS | {"random_goals": 0.0}, random_goals_at_start=0.25), case.env, case.tasks
    )
    keys, limit = jax.random.split(jax.random.key(0), 4000), case.tasks.time_limit()
    begun = jax.jit(jax.vmap(lambda key: algorithm.agent.start(case.state.params, key)))(keys)
    wander = np.asarray(begun.wander)
    assert (wander > 0).mean() == pytest.approx(0.25 * (1 - 1 / limit), abs=0.03)
    assert (wander.max(), wander[wander > 0].mean()) == (limit - 1, pytest.approx(limit / 2, rel=0.1))
    inp = jax.tree.map(lambda x: x[0], case.state.world.inp)
    carry = jax.tree.map(lambda x: x[0], begun)

    @jax.jit
    def goals(wander):
        act = lambda key: algorithm.agent.act(case.state.params, carry._replace(wander=wander), inp, key, False)
        _, after, acted = jax.vmap(act)(keys)
        return acted.goal, after.wander

    anywhere, left = goals(5)
    assert (np.asarray(left) == 4).all()
    for share, expected in ((0.1, -0.8), (0.5, 0.0), (0.9, 0.8)):
        np.testing.assert_allclose(np.quantile(anywhere, share, axis=0), expected * REACH, atol=0.08 * REACH)
    by_manager, left = goals(0)
    assert (np.asarray(left) == 0).all()
    assert np.asarray(by_manager).std(axis=0).max() < 0.2 * REACH  # noise of a tenth of the reach


# The correction


def network(params, x):
    """The worker's actor, in NumPy."""
    x = np.clip((x - params.inputs.mean) / np.sqrt(np.maximum(params.inputs.variance, 1e-4)), -5, 5)
    first, second = (jax.tree.map(np.asarray, params.actor["params"][f"Dense_{i}"]) for i in range(2))
    return np.tanh(np.maximum(x @ first["kernel"] + first["bias"], 0) @ second["kernel"] + second["bias"])


def test_the_correction_is_the_argmax_by_enumeration(case):
    """The reference moves goals by h step by step, for each candidate of each segment in turn."""
    ring, worker = case.state.memory, jax.tree.map(np.asarray, case.state.params.worker)
    places = memory.draw(hiro.whole_segments(ring, C), jax.random.key(5), 40)
    segment = hiro.read_segments(ring, places, C)
    steps, within = jax.tree.map(np.asarray, segment)
    obs = steps.obs["observation"] if isinstance(steps.obs, dict) else steps.obs
    s, s_end, given = place(steps.obs), place(steps.next_obs)[:, -1], steps.extras.goal[:, 0]
    noise = np.asarray(jax.random.normal(jax.random.key(6), (40, 8, 2)))
    calls, of_all = [], []

    def policy(goals):
        calls.append(goals.shape)
        state = np.broadcast_to(obs[:, None, :, 2:], (40, 10, C, obs.shape[-1] - 2))
        return jnp.asarray(network(worker, np.concatenate([state, np.asarray(goals) / REACH], axis=-1)))

    goal, which = hiro.correct_goals(policy, s, s_end, steps.action, within, given, noise, REACH)
    assert calls == [(40, 10, C, 2)]  # all of them at once
    for n in range(40):
        change = s_end[n] - s[n, 0]
        candidates = [given[n], change] + [change + 0.5 * REACH * noise[n, k] for k in range(8)]
        candidates = [np.clip(candidate, -REACH, REACH) for candidate in candidates]
        scores = []
        for candidate in candidates:
            score, now = 0.0, candidate
            for i in range(int(within[n].sum())):
                action = network(worker, np.concatenate([obs[n, i, 2:], now / REACH]))
                score -= 0.5 * np.sum((steps.action[n, i] - action) ** 2)
                if i + 1 < C:
                    now = s[n, i] + now - s[n, i + 1]
            scores.append(score)
        of_all.append(scores)
        assert scores[which[n]] == pytest.approx(max(scores), abs=1e-4)
        assert_close(goal[n], candidates[which[n]], scale=REACH)
    assert len(np.unique(which)) > 4
    assert not within.all()  # some segments end early
    along = hiro.goals_along(hiro.candidate_goals(given, s_end - s[:, 0], noise, REACH), s)
    assert_close(hiro.log_likelihood(steps.action, policy(along), within), np.array(of_all))


def test_ten_candidates_two_of_them_special():
    given, change = jnp.array([[1.0, -2.0], [4.9, 0.0]]), jnp.array([[0.5, 0.5], [9.0, -9.0]])
    found = hiro.candidate_goals(given, change, jax.random.normal(jax.random.key(0), (2, 8, 2)), REACH)
    assert found.shape == (2, 10, 2)
    np.testing.assert_array_equal(found[:, 0], given)
    np.testing.assert_array_equal(found[:, 1], [[0.5, 0.5], [5.0, -5.0]])  # within reach
    noise = jax.random.normal(jax.random.key(1), (50, 8, 2))
    found = hiro.candidate_goals(jnp.zeros((50, 2)), jnp.full((50, 2), 0.25), noise, REACH)
    drawn = np.clip(0.25 + 0.5 * REACH * np.asarray(noise), -REACH, REACH)  # ½ of half the range
    assert_close(found[:, 2:], drawn)


def test_all_goals_of_a_segment_follow_from_the_first():
    rng = np.random.default_rng(0)
    s, goals = rng.normal(size=(3, C, 2)), rng.normal(size=(3, 10, 2))
    expected = np.zeros((3, 10, C, 2))
    for n in range(3):
        for k in range(10):
            now = goals[n, k]
            for i in range(C):
                expected[n, k, i] = now
                if i + 1 < C:
                    now = np.asarray(hiro.goal_transition(s[n, i], now, s[n, i + 1]))
    assert_close(hiro.goals_along(jnp.asarray(goals), jnp.asarray(s)), expected)


# What is learned from


def test_settings_of_the_levels():
    apart = {"worker_discount": 0.9, "manager_discount": 0.5, "exploration_noise": 0.2, "goal_noise": 0.4}
    config = hiro.Config(**SETTINGS | apart)
    worker, manager = hiro.level_configs(config)
    assert (worker.discount, worker.exploration_noise, worker.random_actions) == (0.9, 0.2, 0.0)
    assert (manager.discount, manager.exploration_noise, manager.random_actions) == (0.5, 0.4, 0.3)
    for name in (
        "learning_rate",
        "actor_learning_rate",
        "target_rate",
        "policy_delay",
        "target_noise",
        "target_noise_clip",
        "hidden",
    ):
        assert getattr(worker, name) == getattr(manager, name) == getattr(config, name), name


def test_an_update_is_one_of_the_worker_for_each_batch_and_then_one_of_the_manager():
    """Each update continues from the one before it, with a key of its own."""

    def learn(params, learner, step, key):
        return params * 10 + step.reward, learner + 1, {"value": params, "key": jax.random.uniform(key)}

    level = td3.ActorCritic(None, None, None, None, learn)
    step = td3.Step(*[jnp.array([2.0, 3.0, 4.0])] * 5)
    sample = hiro.Batches(step, td3.Step(*[jnp.array(7.0)] * 5), jnp.array(0.25))
    run = lambda key: hiro.update(hiro.Levels(level, level), hiro.Levels(1.0, 5.0), hiro.Levels(0, 0), sample, key)
    params, learner, metrics = jax.jit(run)(jax.random.key(0))
    assert params == hiro.Levels(1234.0, 57.0)
    assert learner == hiro.Levels(3, 1)
    assert float(metrics["worker_value"]) == pytest.approx((1 + 12 + 123) / 3, rel=1e-6)
    assert float(metrics["manager_value"]) == 5.0
    assert (float(metrics["inner_reward"]), float(metrics["goals_kept"])) == (3.0, 0.25)
    assert metrics["worker_key"] != metrics["manager_key"]


def episodes(ring, b):
    """The slots of environment b's steps that the ring still holds, oldest first."""
    size, slot, capacity = int(ring.size[b]), int(ring.slot[b]), ring.episode.shape[1]
    return [(slot - size + i) % capacity for i in range(size)]


def test_segments_against_a_slow_search(case):
    """Each sampled segment is whole, starts where a goal was set, and ends after c steps or with its episode."""
    places = memory.draw(hiro.whole_segments(case.state.memory, C), jax.random.key(9), 400)
    segment = hiro.read_segments(case.state.memory, places, C)
    steps = stored(case.state.memory)
    segment, places, ring, steps = jax.tree.map(np.asarray, (segment, places, case.state.memory, steps))
    expected = set()
    lengths = set()
    for n in range(400):
        b, row = int(places.env[n]), episodes(ring, int(places.env[n]))
        at = row.index(int(places.slot[n]))
        begin = at - int(steps.extras.age[b, row[at]])
        assert begin >= 0
        end = begin
        while end - begin < C - 1 and not (steps.terminated[b, row[end]] or steps.truncated[b, row[end]]):
            end += 1
        assert end < len(row)
        slots = row[begin : end + 1]
        assert segment.within[n].sum() == len(slots)
        np.testing.assert_array_equal(segment.steps.reward[n][: len(slots)], steps.reward[b, slots])
        np.testing.assert_array_equal(place(segment.steps.obs)[n][: len(slots)], place(steps.obs)[b, slots])
        np.testing.assert_array_equal(place(segment.steps.next_obs)[n, -1], place(steps.next_obs)[b, slots[-1]])
        assert segment.steps.extras.age[n, 0] == 0
        lengths.add(len(slots))
        expected.add((b, slots[0]))
    assert lengths == {C, 19 % C if (case.kind == "ending") else 18 % C}
    assert len(expected) > 25


@pytest.mark.parametrize("correction", [True, False])
def test_what_the_manager_learns_from(case, correction):
    _, (_, found, kept) = case.sample(sampler=None if correction else sampler(case.kind, off_policy_correction=False))
    ring, steps = jax.tree.map(np.asarray, (case.state.memory, stored(case.state.memory)))
    segments = {}  # by where they start: rewards, goal, the true end
    for b in range(case.config.environments):
        row = episodes(ring, b)
        for i, slot in enumerate(row):
            if steps.extras.age[b, slot] == 0:
                end = i
                while end + 1 < len(row) and steps.extras.age[b, row[end + 1]] > 0:
                    end += 1
                slots = row[i : end + 1]
                total = np.float64(steps.reward[b, slots]).sum()
                last = slots[-1]
                about = total, steps.extras.goal[b, slot], steps.terminated[b, last]
                segments[tuple(place(steps.obs)[b, slot])] = *about, place(steps.next_obs)[b, last]
    found = jax.tree.map(np.asarray, found)
    for n in range(case.config.batch_size):
        total, goal, terminated, end = segments[tuple(found.inputs[n, :2])]
        assert found.reward[n] == pytest.approx(SCALE * total, rel=1e-4, abs=1e-5)
        np.testing.assert_array_equal(found.next_inputs[n, :2], end)
        assert found.terminated[n] == terminated
        if not correction:
            assert_close(found.action[n], goal / REACH, scale=1)
    assert (np.abs(found.action) <= 1).all()
    assert found.terminated.any() == (case.kind == "ending")  # neither c steps nor a time limit are an end
    assert kept == 1 if not correction else 0 < kept < 1


def test_what_the_worker_learns_from(case):
    places, (batches, _, _) = case.sample(2)
    assert batches.reward.shape == (case.config.worker_update_ratio, case.config.batch_size)
    steps = jax.tree.map(np.asarray, memory.read(case.state.memory, places))
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), batches)
    s, goal, s_next = place(steps.obs), steps.extras.goal, place(steps.next_obs)
    assert_close(flat.reward, -np.linalg.norm(s + goal - s_next, axis=1))
    assert_close(flat.inputs[:, -2:], goal / REACH)
    assert_close(flat.next_inputs[:, -2:], (s + goal - s_next) / REACH)  # also after c steps
    np.testing.assert_array_equal(flat.terminated, steps.terminated)
    assert (steps.extras.age == C - 1).any()
    assert flat.terminated.any() == (case.kind == "ending")
    observation = steps.obs["observation"] if isinstance(steps.obs, dict) else steps.obs
    np.testing.assert_array_equal(flat.inputs[:, :-2], observation[:, 2:])  # it sees neither its place nor the target


def test_cosine_reward_depends_on_the_direction_alone(case):
    places, (batches, _, _) = case.sample(2, sampler(case.kind, intrinsic_reward="cosine"))
    steps = jax.tree.map(np.asarray, memory.read(case.state.memory, places))
    moved, goal = place(steps.next_obs) - place(steps.obs), steps.extras.goal
    lengths = np.linalg.norm(moved, axis=1) * np.linalg.norm(goal, axis=1)
    went = lengths > 1e-3
    assert went.mean() > 0.5
    expected = (moved * goal).sum(axis=1)[went] / lengths[went]
    assert_close(np.ravel(batches.reward)[went], expected, 1e-4)
    nowhere, somewhere = jnp.zeros(2), jnp.ones(2)
    assert hiro.cosine_reward(somewhere, somewhere, somewhere) == 0
    assert hiro.cosine_reward(nowhere, nowhere, somewhere) == 0


def test_the_worker_sees_goal_dimensions_unless_they_are_hidden():
    sizes = []
    for hidden in (True, False):
        algorithm = hiro.make(hiro.Config(**SETTINGS, hide_goal_dimensions=hidden), *worlds("limit"))
        params = jax.eval_shape(algorithm.agent.init, jax.random.key(0))
        sizes.append(params.worker.actor["params"]["Dense_0"]["kernel"].shape[0])
    assert sizes == [2 + 2 + 2, 6 + 2]  # velocity, block, goal


def test_metrics_and_evaluation(case):
    assert {"goals_kept", "inner_reward", "worker_critic_loss", "manager_critic_loss", "return"} <= case.metrics.keys()
    measured = quick_jit(case.algorithm.evaluate)(case.state, jax.random.key(0))
    assert measured["return"].values.shape == (2,)
    assert ("success_at_end" in measured) == (case.kind != "ending")


def test_pictures(case, tmp_path):
    if case.kind == "ending":
        return
    drawn = hiro_pictures.draw(Trained(case.config, case.env, case.tasks, case.algorithm, case.state), tmp_path)
    assert [path.name for path in drawn] == ["goals.png", "goals.gif"]
    assert all(path.stat().st_size > 1000 for path in drawn)


# What a user can get wrong


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        ("point-maze", {"goal_horizon": 0}, "goal_horizon must be positive, got 0"),
        ("point-maze", {"goal_range": -1.0}, "goal_range must be positive, got -1.0"),
        ("point-maze", {"random_goals": 1.5}, r"random_goals must lie in \[0, 1\], got 1.5"),
        ("point-maze", {"manager_discount": 1.5}, r"manager_discount must lie in \[0, 1\], got 1.5"),
        ("point-maze", {"goal_dimensions": (0, 4)}, r"one of the 4 numbers of an observation, 0 to 3, got \(0, 4\)"),
        ("point-maze", {"goal_dimensions": ()}, r"at least one of the 4 numbers of an observation, 0 to 3, got \(\)"),
        ("point-maze", {"warmup_steps": 0}, r"two segments \(20 steps\) before the first update, got 0 and 10"),
        ("point-maze", {"hidden": ()}, "hidden needs at least one layer, got none"),
        ("point-maze", {"capacity": 1000}, "an episode has 500; use at least 5000"),
        ("CartPole-v1", {}, "HIRO needs a flat vector of continuous actions; CartPole-v1 has Discrete actions"),
    ],
)
def test_bad_settings(env, settings, message):
    with pytest.raises(UsageError, match=message):
        hiro.make(hiro.Config(**settings), *jaxrl_envs.make(env))
