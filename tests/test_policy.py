"""Acting step by step is the compiled rollout, and adapting step by step is the engine's meta-test."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.boxes import inside
from jaxrl_envs.contract import Played
from jaxrl_envs.tabular_mdp import TabularMDP, random_mdp_tasks
from jaxrl_envs.tasks import Tasks, single
from jaxrl_hier import exported_policy, registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import acting
from jaxrl_hier.engine.adapting import Known, as_agent
from jaxrl_hier.engine.chunk import seed_keys
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import begin, ended, first_episode, play_episodes, rollout
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import Transition
from jaxrl_hier.export import export
from jaxrl_hier.host import HostEnv
from jaxrl_hier.meta import rl2
from jaxrl_hier.policy import Compiled, Policy, as_key
from tests.close import assert_close
from tests.line import Line, Params
from tests.sizes import ALIKE, SIZES

KEY = jax.random.key(5)
STEPS, LIMIT = 9, 4  # of a rollout, and of its episodes: two ends


def short(tasks, limit=LIMIT):
    """The same tasks with a time limit of so few steps."""
    cut = lambda params: replace(params, max_steps_in_episode=jnp.int32(limit))
    return tasks._replace(sample=lambda key: cut(tasks.sample(key)), test=None, train=None)


def preset(name, **settings):
    """A registered algorithm at the size of a test, its environment, and short tasks of it."""
    env, tasks = jaxrl_envs.make(registry.entry(name).env)
    return jaxrl_hier.make(name, env, tasks, **SIZES[name] | settings), env, short(tasks)


def rolled(agent, env, tasks, params, key, greedy):
    """Transitions [STEPS, 1, ...] of one world."""
    world = jax.vmap(lambda key: begin(env, agent, tasks, params, key))(key[None])
    return rollout(env, agent, tasks, params, world, STEPS, greedy)[1]


def acted(policy, t):
    """What a policy does [T, ...] that is shown what happened in a rollout, [T, ...]."""
    t, over = jax.tree.map(np.asarray, (t, ended(t)))
    row = lambda x, i: jax.tree.map(lambda x: x[i], x)
    before = lambda i: (t.reward[i - 1], over[i - 1]) if i else ()
    return np.stack([policy.act(row(t.obs, i), *before(i)) for i in range(len(over))])


def program(algorithm, env, tasks, greedy):
    """The text of all that is compiled for acting: what is the same in two algorithms needs one test."""

    def both(key):
        params = algorithm.agent.init(key)
        memory, agents = acting.new_task(env, algorithm.player, params, key)
        agents = jax.tree.map(lambda x: x[None], agents)
        t = rolled(algorithm.agent, env, tasks, params, key, greedy)
        seen = [jax.tree.map(lambda x: x[0], x) for x in (t.obs, t.reward, t.terminated)]
        known = params, memory, agents
        return acting.act(env, algorithm.player, tasks, *known, *seen, greedy=greedy, single=True), t

    return str(jax.make_jaxpr(both)(KEY))


done = {}  # program -> name of the algorithm that was tested


GREEDY = ("dqn", "hiro")  # also without exploring; the others draw, as in training


@pytest.mark.parametrize("name", [name for name in registry.ALGORITHMS if name not in {"rl2", "varibad", *ALIKE}])
def test_acting_step_by_step_is_the_rollout(name):
    algorithm, env, tasks = preset(name)
    for greedy in (False, True) if name in GREEDY else (False,):
        text = program(algorithm, env, tasks, greedy)
        if text in done:
            continue
        params = jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0))
        t = jaxrl_hier.jit(partial(rolled, algorithm.agent, env, tasks, greedy=greedy))(params, key=KEY)
        assert ended(t).sum() >= 2
        space = env.action_space(env.default_params)
        policy = Policy(algorithm, params, env, tasks, key=KEY, greedy=greedy)
        row = jax.tree.map(lambda x: x[:, 0], t)
        # whole numbers are equal; XLA may fuse, and so round, the two programs of a continuous action differently
        assert_close(acted(policy, row), jax.vmap(partial(inside, space))(row.action))
        done[text] = name


@pytest.mark.parametrize(("name", "sweeps"), [("rl2", 0), ("rl2", 2), ("varibad", 0)])
def test_a_recurrent_policy_makes_the_observations_of_its_trials_itself(name, sweeps):
    """Through two episodes that end, of which the trial shows the last action and reward; with sweeps it also counts
    and estimates what the trial would show."""
    if sweeps:
        env, tasks = TabularMDP(horizon=LIMIT), random_mdp_tasks(horizon=LIMIT)
    else:
        env, tasks = jaxrl_envs.make("navigation2d")
        tasks = short(tasks)
    sizes = SIZES[name] | {"episodes_per_trial": 3, "trial_number": True}
    of_rl2 = {"value_sweeps": sweeps} if sweeps else {}
    algorithm = jaxrl_hier.make(name, env, tasks, **sizes, **of_rl2)
    params = jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: 5 * x, params)  # what is observed matters to what is done
    trial = rl2.trials_of(rl2.Config(episodes_per_trial=3, trial_number=True, value_sweeps=sweeps), env, tasks)
    trials = trial.tasks_of(tasks)
    t = jaxrl_hier.jit(partial(rolled, algorithm.agent, trial, trials, greedy=False))(params, key=KEY)
    first = trial.first_of_episode(t.obs)
    assert first.sum() == 3
    obs = jnp.argmax(t.obs[..., :10], axis=-1) if sweeps else t.obs[..., :2]
    inner = t._replace(obs=obs, truncated=jnp.roll(first, -1, axis=0))
    policy = Policy(algorithm, params, env, tasks, key=KEY, greedy=False)
    row = jax.tree.map(lambda x: x[:, 0], inner)
    actions = jax.vmap(partial(inside, env.action_space(env.default_params)))(row.action)
    np.testing.assert_array_equal(acted(policy, row), actions)
    assert policy.steps_of_adaptation == 2


def test_agents_side_by_side_are_the_worlds_of_a_rollout():
    """Each on its own task, whatever episodes end beside it."""
    algorithm, env, tasks = preset("sac")
    params = jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0))

    @jaxrl_hier.jit
    def together(params, key):
        worlds = begin_worlds(env, algorithm.agent, tasks, params, key, 3)
        return rollout(env, algorithm.agent, tasks, params, worlds, STEPS)[1]

    t = together(params, KEY)
    policy = Policy(algorithm, params, env, tasks, key=KEY, greedy=False).batch(3)
    assert_close(acted(policy, t), t.action)
    assert policy.experience[0].tolist() == [2, 2, 2]


def test_a_compiled_program_takes_only_what_it_reads():
    program = Compiled(lambda known, x: (known["b"], known["c"] * x), {"a": 1.0, "b": 2.0, "c": 3.0}, 0.0)
    assert program({"a": 10.0, "b": 20.0, "c": 30.0}, 2.0) == (20.0, 60.0)
    assert len(program._of({"a": 10.0, "b": 20.0, "c": 30.0})) == 2


# Adapting


@pytest.fixture(scope="module")
def maml():
    env, tasks = jaxrl_envs.make("navigation2d")
    algorithm = jaxrl_hier.make("maml", env, tasks, **SIZES["maml"] | {"eval_tasks": 2})
    return algorithm, env, tasks, jaxrl_hier.jit(algorithm.init)(jax.random.key(0))


def test_compiled_adaptation_is_the_meta_test(maml):
    """MAML, with the keys of its evaluation: the adapted agents' returns are those that it reports."""
    algorithm, env, tasks, state = maml
    key = jax.random.key(2)

    @jaxrl_hier.jit
    def both(state):
        key_tasks, key_adapt = jax.random.split(key)

        def one(task, key):
            agent = as_agent(algorithm.player, algorithm.adapt(state.params, task, key))
            after = jax.random.split(key, 3)[-1]
            t = play_episodes(env, agent, task, state.params, after, episodes=4, horizon=20)
            return jnp.mean(jnp.sum(t.reward * first_episode(t), axis=0))

        ours = jax.vmap(one)(tasks.test_batch(2, key_tasks), jax.random.split(key_adapt, 2))
        return ours, algorithm.evaluate(state, key)

    ours, measured = both(state)
    assert_close(ours, measured["return"].values[:, 2], 1e-4)
    np.testing.assert_array_equal(measured["experience_steps"].values, np.tile([0, 80, 160], (2, 1)))
    np.testing.assert_array_equal(measured["experience_episodes"].values, np.tile([0, 4, 8], (2, 1)))


def test_a_policy_takes_the_gradient_step_of_the_meta_test_on_what_it_experienced():
    """Four episodes, two of which end early. A last step's reward comes with the next episode's first observation."""
    env, tasks = Line(), single(Params(max_steps_in_episode=20))
    algorithm = jaxrl_hier.make("maml", env, tasks, **SIZES["maml"])
    agent, player = algorithm.agent, algorithm.player
    params = jaxrl_hier.jit(agent.init)(jax.random.key(0))
    policy = Policy(algorithm, params, env, tasks, greedy=False, key=1)
    rng, lengths, columns = np.random.default_rng(0), [20, 7, 25, 3], []
    reward, over = 0.0, False
    for length in lengths:
        rows = []
        for i in range(length):
            obs = rng.normal(size=1).astype(np.float32)
            assert policy.steps_of_adaptation == 0
            action = policy.act(obs, reward, over)
            reward, over = float(np.float32(rng.normal())), i == length - 1
            rows.append((obs, action, np.float32(reward), over))
        columns.append(rows[:20])  # of a longer one, the horizon's
    before = policy.memory.params
    policy.act(np.zeros(1), reward, over)
    assert (policy.steps_of_adaptation, policy.experience) == (1, (4, 55))

    zeros = lambda *shape: np.zeros((20, 4, *shape), np.float32)
    obs, action, reward, ends = zeros(1), zeros().astype(np.int32), zeros(), zeros().astype(bool)
    for e, rows in enumerate(columns):
        for i, row in enumerate(rows):
            obs[i, e], action[i, e], reward[i, e], ends[i, e] = row

    @jaxrl_hier.jit
    def expected(params):
        one = lambda obs: agent.act(params, (), acting.unseen(env)._replace(obs=obs), KEY, False)[2]
        extras = jax.vmap(jax.vmap(one))(obs)
        steps = Transition(obs, action, reward, ends, jnp.zeros_like(ends), obs, jnp.zeros_like(ends), extras)
        memory = player.new_task(params, KEY)[0]
        return player.learn(params, memory, steps, jnp.array([20, 7, 20, 3])).params

    assert_close(policy.memory.params, expected(params), 1e-4)
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), policy.memory.params, before)
    assert max(jax.tree.leaves(moved)) > 1e-3
    policy.new_task()
    assert policy.steps_of_adaptation == 0
    np.testing.assert_array_equal(jax.tree.leaves(policy.memory.params)[0], jax.tree.leaves(params)[0])


def test_a_run_adapts_by_a_number_as_by_its_key_and_not_backwards():
    run = jaxrl_hier.train("maml", iterations=1, quiet=True, checkpoint_every=1, log_every=1, **SIZES["maml"])
    task = run.env.default_params
    inp = acting.unseen(run.env)
    greedy = lambda key: run.adapt(task, key, steps=1).act(run.state.params, (), inp, KEY, True)[0]
    np.testing.assert_array_equal(greedy(3), greedy(jax.random.key(3)))
    for steps in (-1, 1.5, True):
        with pytest.raises(UsageError, match="steps must be a whole number of steps of adaptation, got"):
            run.adapt(task, 0, steps=steps)


@pytest.mark.parametrize("name", ["maml", "mlsh"])
def test_a_greedy_policy_adapts_by_actions_that_it_samples(name):
    """The gradient of the likeliest actions would be zero, and the policy unchanged."""
    algorithm, env, tasks = preset(name)
    params = jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0))
    greedy, drawn = (Policy(algorithm, params, env, tasks, greedy=greedy, key=1) for greedy in (True, False))
    world, before = jaxrl_envs.to_gymnasium(env, tasks), greedy.memory
    obs, reward, over, most = world.reset(seed=0)[0], 0.0, False, algorithm.player.most
    while greedy.steps_of_adaptation < most:
        action = greedy.act(obs, reward, over)
        if greedy.steps_of_adaptation < most:  # the two programs may round differently
            np.testing.assert_allclose(action, drawn.act(obs, reward, over), rtol=1e-3, atol=1e-4)
        obs, reward, terminated, truncated, _ = world.step(action)
        if over := terminated or truncated:
            obs, _ = world.reset()
    moved = jax.tree.map(lambda x, y: np.abs(np.float64(x) - y).max(), greedy.memory, before)
    assert max(jax.tree.leaves(moved)) > 1e-3
    again = [greedy.act(obs, reward) for _ in range(5)]
    np.testing.assert_array_equal(again, again[:1] * 5)


def test_pearl_believes_step_by_step_what_it_believes_in_the_meta_test():
    """Its episodes after 0, 1, … others, two of them with z from the prior, are those that an evaluation reports."""
    env, tasks = jaxrl_envs.make("sparse-point-robot")
    sizes = SIZES["pearl"] | {"eval_exploration_episodes": 2, "eval_episodes": 4, "eval_tasks": 2}
    algorithm = jaxrl_hier.make("pearl", env, tasks, **sizes)
    state, player = jaxrl_hier.jit(algorithm.init)(jax.random.key(0)), algorithm.player
    key = jax.random.key(3)

    def one(params, task, keys):
        memory, carry = player.new_task(params, key)
        returns = []
        for k in range(5):
            agent = as_agent(player, Known(memory, carry, jnp.zeros(2), jnp.zeros(())))
            sizes = {"episodes": 1, "horizon": player.horizon}
            t = play_episodes(env, agent, task, params, keys[k], greedy=True, **sizes)
            shown = jax.vmap(jax.vmap(env.sparse_reward, (0, None)), (0, None))(t.next_obs, task)
            returns.append(jnp.sum(shown))
            memory = player.learn(params, memory, t._replace(reward=shown), jnp.full(1, player.horizon))
        return jnp.stack(returns)

    @jaxrl_hier.jit
    def both(state):
        key_tasks, key_play = jax.random.split(key)
        keys = jax.vmap(lambda key: jax.random.split(key, 2), out_axes=1)(jax.random.split(key_play, 5))
        ours = jax.vmap(partial(one, state.params))(tasks.test_batch(2, key_tasks), keys)
        return ours, algorithm.evaluate(state, key)

    ours, measured = both(state)
    assert_close(ours, measured["return"].values, 1e-4, scale=1.0)
    np.testing.assert_array_equal(measured["experience_steps"].values, np.tile(20 * np.arange(5), (2, 1)))
    np.testing.assert_array_equal(measured["experience_episodes"].values, np.tile(np.arange(5), (2, 1)))


def test_a_recurrent_policy_remembers_what_compiled_adaptation_does():
    """RL² after two episodes, with the keys of `adapt`, in an environment that draws nothing."""
    env, tasks = jaxrl_envs.make("navigation2d")
    tasks = short(tasks)
    algorithm = jaxrl_hier.make("rl2", env, tasks, **SIZES["rl2"], episodes_per_trial=3)
    params, task = jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0)), tasks.sample(KEY)
    known = jaxrl_hier.jit(partial(algorithm.adapt, steps=2))(params, task, KEY)
    policy = Policy(algorithm, params, env, tasks, key=jax.random.split(KEY, 3)[0], greedy=False)
    world, reward, over = Played(env), 0.0, False
    step, begun = jaxrl_hier.jit(world.step), jaxrl_hier.jit(world.reset)(KEY, task)
    obs, state = begun
    for _ in range(2 * LIMIT):
        action = policy.act(obs, reward, over)
        seen = step(KEY, state, action, task)
        reward, over = seen.reward, seen.terminated | seen.truncated
        obs, state = begun if over else (seen.obs, seen.state)
    assert over
    ours = jax.tree.map(lambda x: x[0], policy._now())
    assert np.abs(ours.carry.hidden).max() > 1e-3
    assert_close((ours.carry, ours.did.action, reward), (known.carry, known.prev_action, known.prev_reward))
    assert policy.act(obs, reward, over).shape == (2,)
    assert (policy.steps_of_adaptation, policy.experience) == (2, (2, 2 * LIMIT))


def test_few_shot_adaptation_is_that_of_the_evaluation():
    env, tasks = jaxrl_envs.make("sinusoid")
    algorithm = jaxrl_hier.make("few-shot-regression", env, tasks, **SIZES["few-shot-regression"])
    state, key = jaxrl_hier.jit(algorithm.init)(jax.random.key(0)), jax.random.key(2)

    @jaxrl_hier.jit
    def both(state):
        key_tasks, key_points = jax.random.split(key)

        def one(task, key):
            key_points, key_test = jax.random.split(key)
            agent = as_agent(algorithm.player, algorithm.adapt(state.params, task, key_points))
            x, y = env.points(key_test, task, 100)
            predict = lambda x: agent.act(state.params, (), acting.unseen(env)._replace(obs=x), key, True)[0]
            return -jnp.mean((jax.vmap(predict)(x) - y) ** 2)

        ours = jax.vmap(one)(tasks.test_batch(4, key_tasks), jax.random.split(key_points, 4))
        return ours, algorithm.evaluate(state, key)

    ours, measured = both(state)
    assert_close(ours, measured["return"].values[:, -1])
    np.testing.assert_array_equal(measured["experience_steps"].values[0], [0] + [5] * 10)


# What comes in


@pytest.fixture(scope="module")
def dqn():
    algorithm = jaxrl_hier.make("dqn", Line(), single(Params()), **SIZES["dqn"])
    return Policy(algorithm, jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0)), Line(), single(Params()))


def test_what_cannot_be_acted_on_is_refused_in_one_line(dqn):
    for obs, message in (
        (np.zeros(2), r"the observation must be float32\[1\], got float64\[2\]"),
        (np.array(["a"]), "the observation must be"),
        ({"x": 1}, "the observation must be"),
    ):
        with pytest.raises(UsageError, match=message):
            dqn.act(obs)
    with pytest.raises(UsageError, match="reward must be one number"):
        dqn.act(np.zeros(1), np.zeros(3))
    with pytest.raises(UsageError, match="a batch is of at least one agent"):
        dqn.batch(0)
    with pytest.raises(UsageError, match="key must be"):
        Policy(dqn._algorithm, dqn._params, Line(), key="a")
    with pytest.raises(UsageError, match=r"key must lie from -2\*\*63 to 2\*\*63 - 1, got 18446744073709551616"):
        Policy(dqn._algorithm, dqn._params, Line(), key=2**64)
    assert dqn.act(np.ones(1)) == dqn.act([1]) == dqn.act(np.ones(1, np.float32))
    dqn.new_task()  # an agent that does not adapt has nothing to forget
    assert dqn.steps_of_adaptation == 0


def test_all_64_bits_of_a_key_count():
    words = [
        jax.random.key_data(as_key(key)).tolist() for key in (0, 1, 2**32, 2**33, 2**32 - 1, -1, 2**63 - 1, -(2**63))
    ]
    assert len({tuple(x) for x in words}) == len(words)
    assert words[:2] == [jax.random.key_data(jax.random.key(i)).tolist() for i in (0, 1)]
    assert words[2] == jax.random.key_data(seed_keys(RunConfig(seed=2**32))[0]).tolist()  # as the seed of a run


@pytest.mark.parametrize("key", [3, -1, 2**32, np.int64(2**40), KEY])
def test_an_exported_policy_draws_as_the_policy_does_on_its_first_task_and_on_the_next(key, tmp_path):
    """From a key of any form, and, without another key, on the tasks after the first."""
    env, tasks = Line(), single(Params(max_steps_in_episode=jnp.int32(LIMIT)))
    algorithm = jaxrl_hier.make("ppo", env, tasks, **SIZES["ppo"])
    params = jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0))
    export(tmp_path / "policy", algorithm, params, env, tasks, greedy=False, about={})
    ours = Policy(algorithm, params, env, tasks, key=key, greedy=False)
    exported = exported_policy.Policy(tmp_path / "policy", jax.random.key_data(key) if key is KEY else key)

    def drawn(policy):
        for _ in range(3):
            yield [float(policy.act(np.zeros(1))) for _ in range(8)]
            policy.new_task()

    by_task = list(drawn(ours))
    np.testing.assert_allclose(list(drawn(exported)), by_task, rtol=1e-5)
    assert len({tuple(actions) for actions in by_task}) == 3


@pytest.mark.parametrize(("name", "world"), [("dqn", "CartPole-v1"), ("td3", "Pendulum-v1")])
def test_a_policy_plays_gymnasium(name, world):
    algorithm, env, tasks = preset(name)
    policy = Policy(algorithm, jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0)), env, tasks)
    played = gymnasium.make(world)
    (obs, _), reward, over = played.reset(seed=0), 0.0, False
    for _ in range(30):
        action = policy.act(obs, reward, over)
        assert played.action_space.contains(action)
        obs, reward, terminated, truncated, _ = played.step(action)
        over = terminated or truncated
        if over:
            obs, _ = played.reset()


class Numbers(gymnasium.Env):
    """Observations and actions are whole numbers that do not begin at 0. The action that pays is the observation."""

    observation_space, action_space = gymnasium.spaces.Discrete(2, start=5), gymnasium.spaces.Discrete(2, start=-3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = int(self.np_random.integers(2))
        return 5 + self.at, {}

    def step(self, action):
        paid = float(action + 3 == self.at)
        return self.reset()[0], paid, False, False, {}


def test_a_policy_counts_from_where_gymnasium_does(tmp_path):
    env = HostEnv(lambda: gymnasium.wrappers.TimeLimit(Numbers(), 5))
    algorithm = jaxrl_hier.make("q-learning", env, **SIZES["q-learning"])
    params = jax.tree.map(lambda x: jnp.eye(2, dtype=x.dtype).reshape(x.shape), algorithm.agent.init(KEY))
    policy = Policy(algorithm, params, env)
    assert [int(policy.act(obs)) for obs in (5, np.uint8(6))] == [-3, -2]
    assert env.action_space().n == 2
    assert policy.batch(2).act([5, 6]).tolist() == [-3, -2]
    with pytest.raises(UsageError, match="the observation must be from 5 to 6, got 0"):
        policy.act(0)
    export(tmp_path / "policy", algorithm, params, env, single(env.default_params), greedy=True, about={})
    exported = exported_policy.Policy(tmp_path / "policy")
    assert [int(exported.act(np.int64(obs))) for obs in (5, 6)] == [-3, -2]


def test_an_exported_policy_acts_the_same_without_this_package(maml, tmp_path):
    """In a process of its own, through a step of adaptation."""
    algorithm, env, tasks, state = maml
    export(tmp_path / "policy", algorithm, state.params, env, tasks, greedy=False, about={"algorithm": "maml"})
    rng = np.random.default_rng(0)
    rows = [(rng.normal(size=2).tolist(), float(rng.normal()), i % 7 == 6) for i in range(40)]
    script = (
        "import json, sys; import numpy as np; from play import Policy; policy = Policy(key=3); "
        "print(json.dumps([policy.act(np.array(o), r, d).tolist() for o, r, d in json.loads(sys.argv[1])])); "
        "assert not {'jaxrl_hier', 'jaxrl_envs', 'flax'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", script, json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "policy", check=False)
    assert not done.returncode, done.stderr
    policy = Policy(algorithm, state.params, env, tasks, key=3, greedy=False)
    ours = [policy.act(np.array(obs), reward, over).tolist() for obs, reward, over in rows]
    assert_close(np.array(json.loads(done.stdout)), np.array(ours))  # XLA may fuse, and so round, the two differently
    assert policy.steps_of_adaptation == 1


class Whole(Line):
    """Actions are whole numbers in a Box."""

    def __init__(self):
        super().__init__(discrete=False)

    def action_space(self, params=None):
        return spaces.Box(-9, 9, (1,), jnp.int32)


def test_what_was_done_is_remembered_as_it_was_chosen():
    """A real number also where the environment takes whole ones: in the trial, and by a policy outside of it."""
    env, tasks = Whole(), single(Params(max_steps_in_episode=jnp.int32(LIMIT)))
    algorithm = jaxrl_hier.make("rl2", env, tasks, **SIZES["rl2"] | {"episodes_per_trial": 3})
    params = jax.tree.map(lambda x: 5 * x, jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0)))
    trial = rl2.trials_of(rl2.Config(episodes_per_trial=3), env, tasks)
    t = jaxrl_hier.jit(partial(rolled, algorithm.agent, trial, trial.tasks_of(tasks), greedy=True))(params, key=KEY)
    assert jnp.issubdtype(t.action.dtype, jnp.floating)
    assert np.abs(np.asarray(t.action) % 1 - 0.5).min() < 0.4
    first = trial.first_of_episode(t.obs)
    inner = t._replace(obs=t.obs[..., :1], truncated=jnp.roll(first, -1, axis=0))
    policy = Policy(algorithm, params, env, tasks, key=KEY, greedy=True)
    row = jax.tree.map(lambda x: x[:, 0], inner)
    assert_close(acted(policy, row), jax.vmap(partial(inside, env.action_space()))(row.action))


def test_time_limits_of_tasks_may_differ_where_the_number_of_the_step_is_shown():
    """A policy shows the share of the longest trial, and so does the trial of a shorter task."""
    limits = lambda key: Params(max_steps_in_episode=jnp.where(jax.random.bernoulli(key), LIMIT, 4 * LIMIT))
    env, tasks = Line(discrete=False), Tasks(limits, resample="episode")
    settings = {"episodes_per_trial": 2, "trial_number": True}
    algorithm = jaxrl_hier.make("rl2", env, tasks, **SIZES["rl2"] | settings)
    params = jax.tree.map(lambda x: 5 * x, jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0)))
    trial = rl2.trials_of(rl2.Config(**settings), env, tasks)
    short_one = single(Params(max_steps_in_episode=jnp.int32(LIMIT)))
    t = jaxrl_hier.jit(partial(rolled, algorithm.agent, trial, trial.tasks_of(short_one), greedy=True))(params, key=KEY)
    assert float(t.obs[1, 0, -1]) == pytest.approx(1 / (8 * LIMIT))
    first = trial.first_of_episode(t.obs)
    inner = t._replace(obs=t.obs[..., :1], truncated=jnp.roll(first, -1, axis=0))
    policy = Policy(algorithm, params, env, tasks, key=KEY, greedy=True)
    row = jax.tree.map(lambda x: x[: 2 * LIMIT, 0], inner)
    assert_close(acted(policy, row), jax.vmap(partial(inside, env.action_space()))(row.action))
