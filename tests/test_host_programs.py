"""Environments of Gymnasium inside compiled programs: the numbers of a twin in JAX, and tickets that cannot go back."""

import re
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from gymnax.wrappers import FlattenObservationWrapper, LogWrapper

import jaxrl_hier
from jaxrl_envs import check_env
from jaxrl_envs.tasks import Tasks, single
from jaxrl_hier import host, host_episodes, host_training, registry
from jaxrl_hier.building import acts_on_host, broken_contracts_in_one_line
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import Agent
from jaxrl_hier.gymnasium_boundary import Converted
from jaxrl_hier.host import HostEnv
from tests.close import assert_close
from tests.sizes import SIZES
from tests.test_host import TINY, line

LIMIT = 6
QUIET = {"log_every": 1, "quiet": True, "plots": False, "tensorboard": False}


class Steps(gymnasium.Env):
    """A walk in whole steps from a start that the seed gives; it ends at 3, and pays near the goal. All numbers are
    exact in float32."""

    observation_space = gymnasium.spaces.Box(-16, 16, (2,), np.float32)
    made = 0

    def __init__(self, box=False, broken=""):
        type(self).made += 1
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32) if box else gymnasium.spaces.Discrete(3)
        self.goal, self.broken = 0.0, broken

    def observe(self):
        return np.array([self.x, self.time / 8], np.float32)

    def reset(self, *, seed=None, options=None):
        if self.broken == "reset":
            raise RuntimeError("no road")
        self.time, self.x = 0, float((seed or 0) % 4 - 2)
        return self.observe(), {}

    def step(self, action):
        if self.broken == "step":
            raise RuntimeError("no legs")
        self.time, self.x = self.time + 1, self.x + float(np.asarray(action).ravel()[0]) - 0.5
        near = abs(self.x - self.goal) < 1
        return self.observe(), float(near), self.x >= 3, False, {"success": near}


@struct.dataclass
class TwinState:
    x: jax.Array
    time: jax.Array


@struct.dataclass
class TwinParams:
    task: jax.Array
    max_steps_in_episode: int = LIMIT


class Twin(environment.Environment):
    """`Steps` in JAX."""

    name = "twin"

    @property
    def default_params(self):
        return TwinParams(task=jnp.zeros(()))

    def observation_space(self, params=None):
        return spaces.Box(-16, 16, (2,), jnp.float32)

    def action_space(self, params=None):
        return spaces.Discrete(3)

    def observe(self, state):
        return jnp.stack([state.x, state.time / 8]).astype(jnp.float32)

    def reset_env(self, key, params):
        seed = jax.random.key_data(key)[1] >> 1
        state = TwinState((seed % 4).astype(jnp.float32) - 2, jnp.zeros((), jnp.int32))
        return self.observe(state), state

    def step_env(self, key, state, action, params):
        state = TwinState(state.x + action - 0.5, state.time + 1)
        near = jnp.abs(state.x - params.task) < 1
        return self.observe(state), state, near.astype(jnp.float32), state.x >= 3, {"success": near}

    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode


def steps(**settings):
    return gymnasium.wrappers.TimeLimit(Steps(**settings), LIMIT)


def set_goal(env, task):
    env.unwrapped.goal = float(task)


def with_goals(**settings):
    """The environment, and goals 0 and 1 to train on and 2 to test."""
    env = HostEnv(steps, set_task=set_goal, task=0.0, **settings)
    return env, env.tasks(lambda key: jax.random.randint(key, (), 0, 2), test=np.full(4, 2.0))


def twin_with_goals():
    of = lambda task: TwinParams(task=jnp.asarray(task, jnp.float32))
    goals = lambda key: of(jax.random.randint(key, (), 0, 2).astype(jnp.float32))
    return Twin(), Tasks(goals, test=jax.vmap(of)(jnp.full(4, 2.0)))


def random_agent(env):
    act = lambda params, carry, inp, key, greedy: (env.action_space().sample(key), carry, ())
    return Agent(init=lambda key: (), start=lambda params, key: (), act=act)


# The numbers of a twin


@pytest.mark.parametrize("seeds", [None, 3], ids=["one seed", "three seeds"])
def test_a_rollout_is_that_of_the_twin_bit_for_bit(seeds):
    """Over the ends of episodes, with tasks, facts and further vmaps."""

    def played(env, tasks):
        def of(key):
            world = begin_worlds(env, random_agent(env), tasks, (), key, 4)
            world, seen = rollout(env, random_agent(env), tasks, (), world, 3 * LIMIT, facts=True)
            return world.inp, world.ep_return, seen

        keys = jax.random.key(3)
        return jax.device_get(
            jax.jit(of)(keys) if seeds is None else jax.jit(jax.vmap(of))(jax.random.split(keys, seeds))
        )

    ours, twins = played(*with_goals()), played(*twin_with_goals())
    jax.tree.map(np.testing.assert_array_equal, ours, twins)
    assert twins[2].terminated.any()
    assert twins[2].truncated.any()


@pytest.mark.parametrize("name", ["ppo", "rl2", "maml"])
def test_training_is_that_on_the_twin(name):
    """Two seeds in one program: the composed updates, and evaluations on the test tasks."""
    sizes = SIZES[name] | ({"episodes_per_trial": 2} if name == "rl2" else {}) | QUIET
    if name == "maml":
        sizes |= {"horizon": LIMIT}
    train = partial(jaxrl_hier.train, name, seeds=2, iterations=2, **sizes)
    ours, twins = train(*with_goals()), train(*twin_with_goals())
    drop = {"steps_per_second"}
    for a, b in zip(ours.rows, twins.rows, strict=True):
        assert_close({k: v for k, v in a.items() if k not in drop}, {k: v for k, v in b.items() if k not in drop})
    assert_close(ours.evaluation, twins.evaluation)
    assert_close(ours.state.params, twins.state.params)


@pytest.mark.parametrize("wrapper", [FlattenObservationWrapper, LogWrapper])
def test_gymnaxs_wrappers_change_nothing(wrapper):
    """Their `reset` is compiled by itself."""
    sizes = SIZES["rl2"] | {"episodes_per_trial": 2} | QUIET
    rows = [
        jaxrl_hier.train("rl2", env, seeds=2, iterations=2, **sizes).rows[-1]["return"]
        for env in (HostEnv(steps), wrapper(HostEnv(steps)))
    ]
    np.testing.assert_allclose(*rows, rtol=1e-5)


class Compiling:
    """A wrapper that compiles the reset of what it wraps."""

    def __init__(self, env):
        self.env = env
        self.compiled = jax.jit(env.reset_env)

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self, key, params=None):
        return self.compiled(key, params)

    def step(self, key, state, action, params=None):
        return self.env.step(key, state, action, params)


def test_a_reset_that_is_compiled_in_another_is_played_in_every_world():
    env = HostEnv(steps)
    run = jaxrl_hier.train("a2c", Compiling(env), seeds=2, iterations=3, **SIZES["a2c"] | QUIET)
    assert np.isfinite(run.rows[-1]["return"])


def test_worlds_that_wait_for_others_keep_their_episodes(monkeypatch):
    """MAML plays one task after another, and episodes that end meanwhile make no room."""
    monkeypatch.setattr(host_episodes, "KEPT", 16)
    sizes = SIZES["maml"] | QUIET | {"horizon": 5 * LIMIT}
    run = jaxrl_hier.train("maml", *with_goals(), seeds=2, iterations=2, **sizes)
    assert run.env.episodes.count > 20 * 16


def test_devices_share_the_environments():
    """Each device calls the host for its own."""
    rows = {}
    for devices in (1, 2):
        run = jaxrl_hier.train("a2c", *with_goals(), iterations=2, devices=devices, **SIZES["a2c"] | QUIET)
        rows[devices] = [run.rows[-1][name] for name in ("return", "episode_length")]
    np.testing.assert_allclose(rows[1], rows[2], rtol=1e-5)


def test_hindsight_learns_all_goals_of_a_line_from_each_seed():
    sizes = TINY | {"updates": 10, "batch_size": 64, "rollout_length": 10, "capacity": 3000}
    sizes |= {"discount": 0.9, "target_rate": 0.05, "random_actions": 0.3, "eval_episodes": 15, "log_every": 40}
    run = jaxrl_hier.train("her-ddpg", HostEnv(line), seeds=3, iterations=120, quiet=True, plots=False, **sizes)
    np.testing.assert_array_equal(run.evaluation["success_at_end"].values, np.ones((3, 15)))


TABLES = ("q-learning", "sarsa", "smdp-q", "intra-option-q", "option-critic-tabular", "maxq", "rl2-options")
OTHERS = (*TABLES, "her-dqn", "her-ddpg", "her-td3", "her-sac", "uvfa", "few-shot-regression")  # goals, or data sets
WHOLE = {"pearl": {"initial_steps": 12, "prior_steps": 6, "posterior_steps": 6, "eval_exploration_episodes": 1}}


FAMILIES = {registry.module(name): name for name in reversed(registry.ALGORITHMS) if name not in OTHERS}


@pytest.mark.parametrize("name", FAMILIES.values())  # one of each file
def test_every_learner_of_vectors_learns_from_it(name):
    """With discrete actions, continuous ones or both, as it is made for; no program steps an old ticket."""
    learned = 0
    for box in (False, True):
        sizes = SIZES.get(name, {}) | WHOLE.get(name, {}) | QUIET
        try:
            found = jaxrl_hier.train(name, *with_goals(box=box), seeds=2, iterations=2, **sizes)
        except UsageError as error:
            assert re.search("has (Box|Discrete) actions", str(error))  # noqa: PT017
        else:
            learned += 1
            assert np.isfinite(next(iter(found.evaluation.values())).values).all()
    assert learned


# Tickets


def begun(env, count=2):
    numbers, _ = env.episodes.begin(
        np.arange(2 * count, dtype=np.uint32).reshape(count, 2), np.zeros((count, 0)), np.ones(count, bool)
    )
    return numbers


def test_the_last_step_is_told_again_and_no_older_one():
    env = HostEnv(steps)
    number, act = begun(env, 1), lambda n, time, action: env.episodes.step((n, np.array([time])), np.array([action]))
    first = act(number, 0, 2)
    jax.tree.map(np.testing.assert_array_equal, act(number, 0, 2), first)
    with pytest.raises(UsageError, match="steps an episode from an old state"):
        act(number, 0, 1)  # another action
    act(number, 1, 1)
    with pytest.raises(UsageError, match="steps an episode from an old state"):
        act(number, 0, 2)
    for time in range(2, LIMIT):
        last = act(number, time, 0)
    assert last.truncated
    jax.tree.map(np.testing.assert_array_equal, act(number, LIMIT - 1, 0), last)
    begun(env, 3)  # in the environment of the first, too
    jax.tree.map(np.testing.assert_array_equal, act(number, LIMIT - 1, 0), last)
    with pytest.raises(UsageError, match="steps an episode from an old state"):
        act(number, LIMIT, 0)


def test_a_program_that_goes_back_is_refused_in_one_line():
    env, two = HostEnv(steps), Twin()

    def both(env):
        _, state = env.reset_env(jax.random.key(0), env.default_params)
        step = lambda action: env.step_env(jax.random.key(1), state, action, env.default_params)[0]
        return step(jnp.int32(0)), step(jnp.int32(2))

    jax.jit(lambda: both(two))()
    with (
        pytest.raises(UsageError, match=r"^Steps: a program steps an episode from an old state, and an environment of"),
        broken_contracts_in_one_line(env, None),
    ):
        jax.block_until_ready(jax.jit(lambda: both(env))())


def test_environments_of_episodes_that_ended_or_are_not_held_are_used_again(monkeypatch):
    env = HostEnv(steps)
    made = Steps.made
    a, _ = begun(env)
    env.episodes.keep([np.array([[a]])])
    assert env.episodes.under.keys() == {a}
    begun(env, 1)
    assert Steps.made == made + 2
    monkeypatch.setattr(host_episodes, "KEPT", 3)
    monkeypatch.setattr(host_episodes, "ROLLOUTS", 0)
    later = [int(begun(env, 1)[0]) for _ in range(4)]
    assert env.episodes.under.keys() == {a, *later[-3:]}  # one that is held is not given up
    env.episodes.close()
    assert not env.episodes.under
    assert not env.episodes.idle


def test_an_episode_that_was_given_up_is_named_as_that(monkeypatch):
    monkeypatch.setattr(host_episodes, "KEPT", 1)
    monkeypatch.setattr(host_episodes, "ROLLOUTS", 0)
    env = HostEnv(steps)
    first, _ = begun(env)
    with pytest.raises(
        UsageError, match="has given up an episode that is still needed, since more than 1 were under way"
    ):
        env.episodes.step((np.array([first]), np.array([0])), np.array([1]))


def test_resets_begin_no_more_episodes_than_end():
    env, tasks = with_goals()

    def of(key):
        world = begin_worlds(env, random_agent(env), tasks, (), key, 4)
        return rollout(env, random_agent(env), tasks, (), world, 3 * LIMIT)[1]

    seen = jax.device_get(jax.jit(jax.vmap(of))(jax.random.split(jax.random.key(0), 2)))
    assert env.episodes.count == 8 + (seen.terminated | seen.truncated).sum()


def test_a_run_ends_the_episodes_that_it_leaves():
    run = jaxrl_hier.train(
        "recurrent-ppo", *with_goals(), iterations=3, evaluate_every=1, **SIZES["recurrent-ppo"] | QUIET
    )
    assert run.env.episodes.count > 48  # 16 environments, and evaluations
    assert not run.env.episodes.under


# Runs


def test_a_resumed_run_starts_new_episodes(tmp_path):
    train = partial(jaxrl_hier.train, "ppo", "gymnasium:CartPole-v1", seeds=2, out=tmp_path / "run")
    sizes = SIZES["ppo"] | QUIET | {"checkpoint_every": 1}
    with pytest.raises(SystemExit):
        train(iterations=4, stop=lambda: bool(checkpoint.iterations(tmp_path / "run")), **sizes)
    at = checkpoint.iterations(tmp_path / "run")[-1]
    assert at < 4
    run = train(iterations=4, resume=True, **sizes)
    assert [row["iteration"] for row in run.rows[::2]] == [1, 2, 3, 4]
    loaded = jaxrl_hier.load(tmp_path / "run")
    assert_close(loaded.evaluate(), run.evaluation)
    policy = loaded.policy(seed=1)
    world = gymnasium.make("CartPole-v1")
    obs, _ = world.reset(seed=0)
    assert world.action_space.contains(int(policy.act(obs)))


@pytest.mark.parametrize("name", ["ppo", "pearl", "fun"])
def test_a_resumed_run_keeps_its_tasks(name, tmp_path):
    """Those of the replay buffers, and those that worlds keep for good; FuN's steps before are not joined to others."""
    env, _ = with_goals(box=name == "pearl")
    tasks = env.tasks(lambda key: jax.random.uniform(key))
    sizes = SIZES[name] | WHOLE.get(name, {}) | QUIET | {"checkpoint_every": 1}
    train = partial(jaxrl_hier.train, name, env, tasks, seeds=2, out=tmp_path / "run", **sizes)
    before, after = train(iterations=2), train(iterations=4, resume=True)
    is_params = lambda x: isinstance(x, host.HostParams)
    goals = lambda run: [x.task for x in jax.tree.leaves(run.state, is_leaf=is_params) if is_params(x)]
    assert goals(before)
    jax.tree.map(np.testing.assert_array_equal, goals(before), goals(after))
    assert [row["iteration"] for row in after.rows[::2]] == [1, 2, 3, 4]


def test_members_of_a_sweep_are_runs_with_their_settings():
    sizes = {"seeds": 2, "iterations": 3, **SIZES["a2c"], **QUIET}
    found = jaxrl_hier.sweep("a2c", HostEnv(steps), over={"learning_rate": [1e-3, 1e-1]}, **sizes)
    for member, run in zip(found.members, found.runs):
        alone = jaxrl_hier.train("a2c", HostEnv(steps), **member.changed, **sizes)
        assert_close(run.state.params, alone.state.params, tolerance=1e-5)
        assert_close(run.evaluation, alone.evaluation, tolerance=1e-5)


def test_a_stopped_sweep_goes_on_and_its_members_load(tmp_path):
    """Also those that `train` would have acted in on the host, with one seed of a flat learner."""
    settings = SIZES["ppo"] | QUIET | {"iterations": 4, "checkpoint_every": 1}
    sweep = partial(jaxrl_hier.sweep, "ppo", "gymnasium:CartPole-v1", over={"learning_rate": [1e-3, 1e-2]})
    group = tmp_path / "sweep" / "groups" / "0"
    with pytest.raises(SystemExit):
        sweep(**settings, out=tmp_path / "sweep", stop=lambda: bool(checkpoint.iterations(group)))
    assert checkpoint.iterations(group)[-1] < 4
    found = sweep(**settings, out=tmp_path / "sweep", resume=True)
    for run in found.runs:
        assert [row["iteration"] for row in run.rows] == [1, 2, 3, 4]
        loaded = jaxrl_hier.load(run.directory)
        assert np.isfinite(loaded.evaluate()["return"].values).all()


def test_an_environment_that_fails_in_an_evaluation_is_named():
    run = jaxrl_hier.train("rl2", HostEnv(steps), iterations=1, **SIZES["rl2"] | QUIET)
    lame = HostEnv(partial(steps, broken="step"))
    lame.tells_success = False
    with pytest.raises(UsageError, match=r"^Steps: step raises RuntimeError \(.*\): no legs$"):
        run.evaluate(lame)


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ("reset", r"^Steps: reset raises RuntimeError \(test_host_programs.py, line \d+\): no road$"),
        ("step", r"^Steps: step raises RuntimeError \(test_host_programs.py, line \d+\): no legs$"),
    ],
)
def test_errors_of_the_environment_in_one_line(broken, line, caplog):
    env = HostEnv(steps, broken="")
    env.build = lambda: host_training.HostEnv(steps).build().__class__(steps(broken=broken))
    env.tells_success = False
    with pytest.raises(UsageError, match=line):
        jaxrl_hier.train("rl2", env, iterations=1, **SIZES["rl2"] | QUIET)
    assert not [record for record in caplog.records if record.name.startswith("jax")]  # no traceback beside it


@pytest.mark.parametrize("name", ["rl2", "ppo"])
def test_what_a_first_step_breaks_is_said_of_the_environment(name):
    """Which has no `step_env`, nor breaks gymnax's contract."""

    class Lame(Steps):
        def step(self, action):
            obs, _, *ends = super().step(action)
            return obs, np.nan, *ends

    env = HostEnv(lambda: gymnasium.wrappers.TimeLimit(Lame(), LIMIT))
    with pytest.raises(UsageError, match=r"^Lame: a reward is nan, it must be a finite number of float32"):
        jaxrl_hier.train(name, env, iterations=1, **SIZES[name] | QUIET)


def test_an_interrupt_in_the_environment_is_one_of_the_program(tmp_path):
    """And the folder of the run, which may have been trained for long, stays."""

    class Interrupted(Steps):
        def step(self, action):
            raise KeyboardInterrupt

    env = HostEnv(steps)
    env.build = lambda: Converted(gymnasium.wrappers.TimeLimit(Interrupted(), LIMIT))
    env.tells_success = False
    with pytest.raises(KeyboardInterrupt):
        jaxrl_hier.train("ppo", env, seeds=2, iterations=1, out=tmp_path / "run", **SIZES["ppo"] | QUIET)
    assert (tmp_path / "run" / "config.json").exists()


def test_evaluating_again_and_again_leaves_no_environments_behind():
    closed = []

    class Closing(Steps):
        def close(self):
            closed.append(self)

    env = HostEnv(lambda: gymnasium.wrappers.TimeLimit(Closing(), LIMIT))
    run = jaxrl_hier.train("ppo", env, seeds=2, iterations=1, **SIZES["ppo"] | QUIET)
    open_before = Closing.made - len(closed)
    for _ in range(2):
        run.evaluate()
        assert Closing.made - len(closed) == open_before


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UsageError, match="environments of Gymnasium are trained in by one process, got 2"):
        host_training.train(None, None, HostEnv(steps), RunConfig(devices=2))


def test_tasks_need_both_arguments():
    with pytest.raises(UsageError, match="Steps needs set_task and task, or neither"):
        HostEnv(steps, set_task=set_goal)
    alone = HostEnv(steps)
    shorter = alone.default_params.replace(max_steps_in_episode=2)
    with pytest.raises(UsageError, match="Steps has no tasks: give HostEnv set_task, how it is told one"):
        jaxrl_hier.make("ppo", alone, single(shorter))
    assert jaxrl_hier.make("ppo", alone, single(alone.default_params), **SIZES["ppo"]).env_steps
    with pytest.raises(UsageError, match="Steps has no tasks: give HostEnv set_task"):
        HostEnv(steps).tasks(lambda key: jnp.zeros(()))


def test_whole_numbers_reach_the_environment_whole():
    """As the number of a level does, beyond what float32 holds; fractions are no such numbers."""
    told = []
    env = HostEnv(steps, set_task=lambda env, task: told.append(int(task)), task=0)
    one = 123_456_789
    tasks = env.tasks(lambda key: jnp.int32(one), test=np.full(2, one + 1))
    jaxrl_hier.train("a2c", env, tasks, iterations=1, **SIZES["a2c"] | QUIET)
    assert set(told) == {0, one, one + 1}  # 0: what tells whether steps say "success"
    with pytest.raises(UsageError, match=r"Steps must be int32\[\], like its first, and sample draws float32\[\]"):
        env.tasks(lambda key: jax.random.uniform(key))
    with pytest.raises(UsageError, match=r"must be int32\[\], like its first, and test holds int32\[3\]"):
        env.tasks(lambda key: jnp.int32(one), test=np.zeros((2, 3), int))


def test_the_check_of_pure_environments_is_not_for_it():
    with pytest.raises(ValueError, match=r"^Steps is an environment of Gymnasium, .* gymnasium.utils.env_checker"):
        check_env(HostEnv(steps))


def test_success_is_told_where_the_environment_tells_it():
    assert HostEnv(steps).tells_success
    assert not HostEnv("CartPole-v1").tells_success


def test_one_seed_of_a_flat_learner_without_tasks_acts_on_the_host():
    env, _ = with_goals()
    config, run = registry.module("ppo").Config(), lambda **more: RunConfig(**more)
    plain = HostEnv(steps)
    assert acts_on_host(config, run(), plain)
    for other in ((config, run(seeds=2), plain), (config, run(devices=2), plain), (config, run(), env)):
        assert not acts_on_host(*other)
    assert not acts_on_host(registry.module("rl2").Config(), run(), plain)


def test_a_run_that_acts_on_the_host_keeps_the_form_of_its_checkpoints():
    """So that those of earlier versions are read."""
    run = jaxrl_hier.train("ppo", HostEnv(steps), iterations=1, **SIZES["ppo"] | QUIET)
    state = run.state.world.env_state
    assert vars(state).keys() == {"time"}
    assert state.time.shape == (1, SIZES["ppo"]["environments"])
