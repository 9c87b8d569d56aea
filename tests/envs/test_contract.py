"""What an environment returns is converted once, where it enters; wrappers are played by their own step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze
from gymnax.environments import environment, spaces
from gymnax.wrappers.purerl import FlattenObservationWrapper, GymnaxWrapper, LogWrapper, StickyActionWrapper

import jaxrl_envs
from jaxrl_envs.adapters import Adapter
from jaxrl_envs.check import check_env
from jaxrl_envs.contract import EnvCheckError, Played, describes, wrapped
from jaxrl_envs.tasks import Tasks, single
from jaxrl_hier.engine.evaluation import play
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import episode_totals, rollout
from jaxrl_hier.engine.types import Agent
from tests.close import assert_close
from tests.compiling import needs_float16
from tests.line import Line, Params, State, after_step, variant

right = Agent(init=lambda key: (), start=lambda p, key: (), act=lambda p, c, i, k, g: (jnp.ones((), jnp.int32), c, ()))


def played(env, steps, agent=right, task=None):
    """A rollout of two environments; returns of the episodes so far, and the transitions [steps, 2]."""

    @jax.jit
    def run(key):
        tasks = single(env.default_params if task is None else task)
        worlds = begin_worlds(env, agent, tasks, (), key, 2)
        _, seen = rollout(env, agent, tasks, (), worlds, steps)
        return episode_totals(worlds, seen)[0], seen

    return run(jax.random.key(0))


KINDS = {
    "Python's False": {"terminated": lambda self, x: False},
    "Python's 0": {"terminated": lambda self, x: 0},
    "NumPy's False": {"terminated": lambda self, x: np.bool_(False)},
    "an integer flag": {"terminated": lambda self, x: jnp.zeros((), jnp.int32)},
    "a byte for a flag": {"terminated": lambda self, x: np.uint8(0)},
    "a limit in integers": {"is_truncated": lambda self, s, p: (s.time >= p.max_steps_in_episode).astype(jnp.int32)},
    "Python's reward": {"reward": lambda self, x: 1},
    "a reward in double precision": {"reward": lambda self, x: np.float64(1)},
    "a boolean reward": {"reward": lambda self, x: jnp.ones((), bool)},
    "a reward in half precision": {"reward": lambda self, x: jnp.ones((), jnp.bfloat16)},
    "a list for an observation": {"step_env": after_step(lambda obs, *rest: ([obs[0]], *rest))},
    "integers for an observation": {"step_env": after_step(lambda obs, *rest: (obs.astype(jnp.int32), *rest))},
    "Python's numbers for a state": {"reset_env": lambda self, key, p: (np.zeros(1), State(x=0.0, time=0))},
    "a state in other precision": {
        "step_env": after_step(lambda o, s, *rest: (o, s.replace(time=s.time.astype(jnp.int16)), *rest))
    },
    "text in info": {"step_env": after_step(lambda *returned: (*returned[:4], {"name": "text"}))},
    "no info": {"step_env": after_step(lambda *returned: (*returned[:4], None))},
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_converted_where_they_enter(kind):
    totals, seen = played(variant(**KINDS[kind]), 7)
    np.testing.assert_array_equal(totals[:, 0], [1, 2, 3, 4, 5, 1, 2])
    assert seen.terminated.dtype == seen.truncated.dtype == jnp.bool_
    assert not seen.terminated.any()
    assert seen.truncated[:, 0].tolist() == [False] * 4 + [True] + [False] * 2
    assert seen.reward.dtype == seen.obs.dtype == seen.next_obs.dtype == jnp.float32
    assert not any(x.weak_type for x in jax.tree.leaves(seen))


def raising(self, key, state, action, params):
    raise RuntimeError("no such move")


def branching(self, key, state, action, params):
    return Line.step_env(self, key, state, action, params) if state.x > 1 else raising(self, key, state, action, params)


REFUSED = {
    r"observation is float32\[2\], it must be float32\[1\]": {
        "step_env": after_step(lambda obs, *rest: (jnp.zeros(2), *rest))
    },
    "observation is no array but NoneType": {"step_env": after_step(lambda obs, *rest: (None, *rest))},
    r"reward is float32\[1\], it must be a scalar": {"reward": lambda self, x: jnp.ones(1)},
    "reward is no array but str": {"reward": lambda self, x: "one"},
    r"reward is complex64\[\]": {"reward": lambda self, x: jnp.ones((), jnp.complex64)},
    r"terminated is float32\[\], it must be a scalar, bool": {"terminated": lambda self, x: jnp.zeros(())},
    r"terminated is bool\[1\]": {"terminated": lambda self, x: jnp.zeros(1, bool)},
    r"truncated is float32\[\]": {"is_truncated": lambda self, state, params: jnp.zeros(())},
    r"the state's time after a step is float32\[\], it must be a scalar, int32": {
        "step_env": after_step(lambda o, s, *rest: (o, s.replace(time=s.time.astype(jnp.float32)), *rest))
    },
    r"the state's x after a step is float32\[1\]": {
        "step_env": after_step(lambda o, s, *rest: (o, s.replace(x=s.x[None]), *rest))
    },
    "changes the state's structure": {"step_env": after_step(lambda o, s, *rest: (o, (s.x, s.time), *rest))},
    r"step_env raises RuntimeError \(test_contract.py, line \d+\): no such move": {"step_env": raising},
    r"step_env raises TracerBoolConversionError \(test_contract.py": {"step_env": branching},
    "this one returns 4 values": {"step_env": after_step(lambda *returned: returned[:4])},
    "this one returns 6 values": {"step_env": after_step(lambda *returned: (*returned, {}))},
    "this one returns an array": {"reset_env": lambda self, key, params: jnp.zeros(1)},
    "reward is a number too large": {"reward": lambda self, x: 10**400},
    "the state's time is 3000000000, it must be a scalar, int32": {
        "reset_env": lambda self, key, p: (np.zeros(1), State(x=0.0, time=np.int64(3_000_000_000)))
    },
    r"the state's x after a step is float32\[\], it must be a scalar, bfloat16": {
        "reset_env": lambda self, key, p: (np.zeros(1), State(x=jnp.zeros((), jnp.bfloat16), time=0))
    },
    "overrides step, which is not called": {"step": raising},
    "overrides reset, which is not called": {"reset": raising},
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_converted_is_refused_in_one_line(line):
    with pytest.raises(EnvCheckError, match=line) as error:
        jax.eval_shape(lambda: played(variant(**REFUSED[line]), 2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["default_params", "action_space", "observation_space", "step_env", "is_truncated"])
def test_what_is_missing_is_named(missing):
    parts = ("default_params", "action_space", "observation_space", "reset_env", "step_env", "is_truncated")
    line = Line()
    bare = type("Bare", (), {})()
    vars(bare).update({name: getattr(line, name) for name in parts if name != missing})
    with pytest.raises(EnvCheckError, match=f"Bare breaks the environment contract: it has no {missing}"):
        jax.eval_shape(lambda: played(bare, 2, task=Params()))


@needs_float16
def test_structured_observations_are_converted_part_by_part():
    env = variant(
        observation_space=lambda self, params=None: spaces.Dict(
            {"place": spaces.Box(-2.0, 2.0, (1,)), "pair": spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, ())])}
        ),
        reset_env=lambda self, key, p: ({"place": np.zeros(1), "pair": [0, 1]}, State(x=0.0, time=0)),
        step_env=after_step(lambda obs, *rest: ({"place": obs.astype(jnp.float16), "pair": (True, 0)}, *rest)),
    )
    _, seen = played(env, 2)
    assert jax.tree.map(lambda x: str(x.dtype), seen.next_obs) == {"place": "float32", "pair": ("int32", "float32")}
    env = variant(observation_space=lambda self, params=None: spaces.Dict({"place": spaces.Box(-2.0, 2.0, (1,))}))
    with pytest.raises(EnvCheckError, match="a dict of place by its space, this one is"):
        jax.eval_shape(lambda: played(env, 2))


# The checker


def test_the_checker_looks_without_jit_too():
    with pytest.raises(EnvCheckError, match="terminated is Python's False without jit"):
        check_env(variant(terminated=lambda self, x: False), episodes=1)


def test_the_checker_finds_a_python_counter():
    class Counts(Line):
        steps = 0

        def reward(self, x):
            self.steps += 1
            return jnp.float32(self.steps)

    with pytest.raises(EnvCheckError, match="step_env differs under jit"):
        check_env(Counts(), episodes=1)


def test_the_checker_takes_typed_keys_in_a_state():
    def step(self, key, state, action, params):
        key, again = jax.random.split(state.x)
        state = state.replace(x=key, time=state.time + 1)
        return jax.random.uniform(again, (1,)), state, jnp.ones(()), jnp.zeros((), bool), {}

    begin = lambda self, key, p: (jnp.zeros(1), State(x=key, time=jnp.zeros((), jnp.int32)))
    check_env(variant(reset_env=begin, step_env=step), episodes=2)
    count = iter(range(100))
    forgets = lambda self, key, *rest: step(self, key, rest[0].replace(x=jax.random.key(next(count))), *rest[1:])
    with pytest.raises(EnvCheckError, match="step_env differs under jit"):
        check_env(variant(reset_env=begin, step_env=forgets), episodes=1)


@pytest.mark.parametrize("line", ["this one returns 4 values", "changes the state's structure", "reward is no array"])
def test_the_checker_says_what_stops_the_engine(line):
    methods = next(methods for message, methods in REFUSED.items() if message.startswith(line))
    with pytest.raises(EnvCheckError, match=line):
        check_env(variant(**methods), episodes=1)


# Wrappers in gymnax's own style


class TenTimes(GymnaxWrapper):
    """Changes the reward."""

    def reset(self, key, params=None):
        return self._env.reset(key, params)

    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, truncated, info = self._env.step(key, state, action, params)
        return obs, state, 10 * reward, terminated, truncated, info


class Reversed(GymnaxWrapper):
    """Changes the action; `reset` is forwarded."""

    def step(self, key, state, action, params=None):
        return self._env.step(key, state, 1 - action, params)


class Shifted(GymnaxWrapper):
    """Changes the observation, and counts steps in a state of its own; not of gymnax's base class."""

    def __init__(self, env):
        self.inner = env

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def observation_space(self, params=None):
        return spaces.Box(-1.0, 3.0, (1,))

    def reset(self, key, params=None):
        obs, state = self.inner.reset(key, params)
        return obs + 1, (state, 0)

    def step(self, key, state, action, params=None):
        obs, inner, reward, terminated, truncated, info = self.inner.step(key, state[0], action, params)
        return obs + 1, (inner, state[1] + 1), reward, terminated, truncated, info


class Shorter(GymnaxWrapper):
    """Has a time limit of its own."""

    def reset(self, key, params=None):
        obs, state = self._env.reset(key, params)
        return obs, (state, 0)

    def step(self, key, state, action, params=None):
        obs, inner, reward, terminated, truncated, info = self._env.step(key, state[0], action, params)
        return obs, (inner, state[1] + 1), reward, terminated, truncated | (state[1] + 1 >= 3), info


class Keeps(TenTimes):
    """Keeps a method of the environment, and not the environment alone."""

    def __init__(self, env):
        super().__init__(env)
        self.inner_step = env.step

    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, truncated, info = self.inner_step(key, state, action, params)
        return obs, state, 10 * reward, terminated, truncated, info


class OwnStyle(GymnaxWrapper):
    """Overrides `step_env`, as the contract has it."""

    def step_env(self, key, state, action, params):
        obs, state, reward, terminated, info = self._env.step_env(key, state, action, params)
        return obs, state, 10 * reward, terminated, info


class InnerStep(GymnaxWrapper):
    """Overrides `step_env` and `reset_env`, and calls the environment's `step` and `reset`."""

    def reset_env(self, key, params):
        return self._env.reset(key, params)

    def step_env(self, key, state, action, params):
        obs, state, reward, terminated, _, info = self._env.step(key, state, action, params)
        return obs, state, 10 * reward, terminated, info


class Starts(GymnaxWrapper):
    """Changes where episodes begin, and nothing else."""

    def reset_env(self, key, params):
        obs, state = self._env.reset_env(key, params)
        return obs + 1, state.replace(x=state.x + 1)


class Truncates(GymnaxWrapper):
    """Changes the time limit, and nothing else."""

    def is_truncated(self, state, params):
        return state.time >= 3


class Innermost(TenTimes):
    """Keeps what the environment wraps, too."""

    def __init__(self, env):
        self.base = env._env
        super().__init__(env)

    def step(self, key, state, action, params=None):
        assert self.base.name == "Line"
        return super().step(key, state, action, params)


WRAPPED = {  # return of an episode, its length, and where it leads to by five steps to the right
    "reward": (TenTimes, 50, 5, 0.5),
    "reward, twice": (lambda env: TenTimes(TenTimes(env)), 500, 5, 0.5),
    "reward over a log": (lambda env: TenTimes(LogWrapper(env)), 50, 5, 0.5),
    "action": (Reversed, 5, 5, -0.5),
    "observation": (Shifted, 5, 5, 1.5),
    "time limit": (Shorter, 3, 3, 0.3),
    "a kept method": (Keeps, 50, 5, 0.5),
    "step_env": (OwnStyle, 50, 5, 0.5),
    "step_env over step": (lambda env: OwnStyle(TenTimes(env)), 500, 5, 0.5),
    "step over step_env": (lambda env: TenTimes(OwnStyle(env)), 500, 5, 0.5),
    "step in step_env": (InnerStep, 50, 5, 0.5),
    "step in step_env, over step": (lambda env: InnerStep(TenTimes(env)), 500, 5, 0.5),
    "reset_env alone": (Starts, 5, 5, 1.5),
    "reset_env over step": (lambda env: TenTimes(Starts(env)), 50, 5, 1.5),
    "the innermost as well": (lambda env: Innermost(LogWrapper(env)), 50, 5, 0.5),
    "gymnax's sticky actions": (lambda env: StickyActionWrapper(env, 1.0), 5, 5, -0.5),
    "gymnax's flat observations": (FlattenObservationWrapper, 5, 5, 0.5),
    "gymnax's log": (LogWrapper, 5, 5, 0.5),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapper_is_played_by_its_own_step(name):
    wrap, worth, length, place = WRAPPED[name]
    env = wrap(Line())
    totals, seen = played(env, 5)
    over = np.asarray(seen.truncated[:, 0])
    assert np.flatnonzero(over)[0] == length - 1
    assert float(totals[length - 1, 0]) == worth
    assert float(seen.next_obs[length - 1, 0, 0]) == pytest.approx(place)  # the true successor, not a reset's
    first = 1.0 if name in ("observation", "reset_env alone", "reset_env over step") else 0.0
    assert seen.obs[0, 0, 0] == first
    measured = play(env, right, single(env.default_params), (), jax.random.key(0), 2)
    assert measured["return"].values.tolist() == [worth] * 2
    assert measured["complete"].values.all()
    check_env(env, episodes=1)


def test_a_wrapper_may_change_the_time_limit_alone():
    totals, seen = played(Truncates(Line()), 7)
    np.testing.assert_array_equal(totals[:, 0], [1, 2, 3, 1, 2, 3, 1])
    assert np.flatnonzero(seen.truncated[:, 0]).tolist() == [2, 5]


def test_gymnax_environments_are_played_the_same_inside_a_wrapper():
    env, _tasks = jaxrl_envs.make("CartPole-v1")
    a = played(env, 30, task=env.default_params)[1]
    b = played(LogWrapper(env), 30, task=env.default_params)[1]
    jax.tree.map(np.testing.assert_array_equal, a, b)


class Walk(Adapter):
    """A walk that begins anywhere and ends beyond ±3, or after 5 steps."""

    def __init__(self):
        super().__init__("walk", 5, spaces.Box(-9.0, 9.0, (1,), jnp.float32), spaces.Discrete(2))

    def begin(self, key, params):
        place = jax.random.uniform(jax.random.wrap_key_data(key), (1,), minval=-3, maxval=3)
        return place, place

    def go_on(self, key, inner, action, params):
        place = inner + 2.0 * action - 1.0
        return place, place, place[0], jnp.abs(place[0]) > 3, {}


@pytest.mark.rounding
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_an_adapter_resets_by_itself_as_gymnax_does(depth):
    """But only where an episode has ended, in any number of vmaps."""
    env, shape = Walk(), (3, 4)[:depth]
    gymnax_step = lambda key, state, action: environment.Environment.step(env, key, state, action)
    own, theirs, begin = env.step, gymnax_step, env.reset
    for _ in shape:
        own, theirs, begin = jax.vmap(own), jax.vmap(theirs), jax.vmap(begin)
    _, state = begin(jax.random.split(jax.random.key(0), shape) if depth else jax.random.key(0))
    ended = 0
    for t in range(12):
        keys = jax.random.split(jax.random.key(t), shape) if depth else jax.random.key(t)
        action = jax.random.randint(jax.random.key(100 + t), shape, 0, 2)
        ours, expected = own(keys, state, action), theirs(keys, state, action)
        assert_close(ours, expected)  # equal but for the rounding of two programs
        state, ended = ours[1], ended + int(jnp.sum(ours[3] | ours[4]))
    assert ended >= 2
    assert "cond[" in str(jax.make_jaxpr(own)(keys, state, action))


class OfAnotherPackage:
    """Has `step`, and a method that makes params."""

    def default_params(self, **settings):
        return settings

    def step(self, params, timestep, action):
        return timestep


def test_an_environment_of_another_package_inside_is_left_alone():
    env = Line()
    env.inner = OfAnotherPackage()
    assert wrapped(env) is None
    check_env(env, episodes=1)


class Held(GymnaxWrapper):
    """Holds `step` as an attribute, as purejaxrl's vectorising wrapper does."""

    def __init__(self, env):
        super().__init__(env)
        self.step = jax.vmap(env.step, (0, 0, 0, None))


class Two(GymnaxWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.other = Line()

    def step(self, key, state, action, params=None):
        return self.other.step(key, state, action, params)


class Overridden(OwnStyle):
    def step(self, key, state, action, params=None):
        return super().step(key, state, action, params)


class Old(GymnaxWrapper):
    """Returns five values, as before gymnax 1.0."""

    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, truncated, info = self._env.step(key, state, action, params)
        return obs, state, reward, terminated | truncated, info


def keeping(make):
    """A wrapper that keeps a function made of its environment, by which it steps."""

    class Stepper(GymnaxWrapper):
        def __init__(self, env):
            super().__init__(env)
            self.kept = make(self, env)

        def step(self, key, state, action, params=None):
            return self.kept(key, state, action, params)

    return Stepper


def renamed(self, env):
    step = env.step
    return lambda *x: step(*x)


KEEPS = "Stepper keeps the environment's step in kept, .* call the environment's step in the wrapper's methods"


class Mixed(TenTimes):
    def reset_env(self, key, params):
        return self._env.reset_env(key, params)


@pytest.mark.parametrize(
    ("wrap", "line"),
    [
        (keeping(lambda self, env: jax.jit(env.step)), KEEPS),
        (keeping(lambda self, env: partial(env.step)), KEEPS),
        (keeping(lambda self, env: jax.jit(partial(lambda *x: env.step(*x)))), KEEPS),
        (keeping(lambda self, env: lambda *x: jax.tree.map(lambda y: y, self._env.step(*x))), KEEPS),
        (keeping(renamed), KEEPS),
        (Mixed, "Mixed overrides reset, step and reset_env, of which only some would be called"),
        (Held, "overrides step, which is not called"),
        (Two, "Two wraps several environments"),
        (Overridden, "overrides step, which is not called"),
        (Old, "step returns .*, this one returns 5 values"),
    ],
)
def test_a_wrapper_that_cannot_be_played_is_refused(wrap, line):
    with pytest.raises(EnvCheckError, match=line):
        jax.eval_shape(lambda: played(wrap(Line()), 2))


def test_a_wrapper_may_keep_functions_that_do_not_step():
    kept = keeping(lambda self, env: self._env.step)(Line())
    kept.begin, kept.space, kept.other = jax.jit(kept._env.reset_env), lambda: kept._env.action_space(), jnp.ones(3)
    kept.again = lambda n: kept.again(n - 1) if n else 0  # which closes over itself
    assert played(kept, 5)[1].truncated[:, 0].tolist() == [False] * 4 + [True]


def test_an_exact_model_is_not_believed_of_what_a_wrapper_changed():
    rooms = jaxrl_envs.make("four-rooms")[0]
    assert describes(rooms, "model")
    assert not describes(TenTimes(rooms), "model")
    assert not describes(OwnStyle(rooms), "model")
    assert describes(type("Same", (GymnaxWrapper,), {})(rooms), "model")  # changes nothing
    changed = type("Changed", (type(rooms),), {"step_env": lambda self, *x: type(rooms).step_env(self, *x)})
    assert not describes(changed(), "model")
    assert not describes(Line(), "model")


# Facts


def told(**given):
    """The facts of a step whose `info` is that of `given`, and the environment's other attributes."""
    info = given.pop("info")
    env = variant(step_env=after_step(lambda *returned: (*returned[:4], info)), **given)
    tasks = single(env.default_params)
    worlds = begin_worlds(env, right, tasks, (), jax.random.key(0), 1)
    return rollout(env, right, tasks, (), worlds, 1, facts=True)[1].facts


@pytest.mark.parametrize("success", [True, 1, 0.5, np.float64(1), jnp.ones(()), jnp.ones((), jnp.int32)])
def test_success_is_a_flag_or_a_number(success):
    found = told(info=freeze({"success": success}))["success"]
    assert found.dtype == jnp.bool_
    assert found.all()


@pytest.mark.parametrize("success", ["no", None, jnp.zeros(3), {"ever": True}])
def test_success_of_another_kind_is_no_fact_unless_it_is_declared(success):
    assert told(info={"success": success}) == {}
    with pytest.raises(EnvCheckError, match=r"info\['success'\] is"):
        told(info={"success": success}, facts=("success",))


# Tasks of different length


def test_evaluations_play_until_the_longest_episode_ends():
    sample = lambda key: Params(max_steps_in_episode=jax.random.randint(key, (), 3, 40))
    for resample in ("never", "episode"):
        tasks = Tasks(sample=sample, resample=resample)
        assert tasks.time_limit() == 39
        measured = jax.jit(lambda key, tasks=tasks: play(Line(), right, tasks, (), key, 200))(jax.random.key(0))
        length = np.asarray(measured["length"].values)
        np.testing.assert_array_equal(measured["return"].values, length)
        assert length.min() == 3
        assert length.max() == 39
        assert abs(length.mean() - 21) < 2.5  # the standard error is .76
        assert measured["complete"].values.all()


def test_what_is_cut_is_not_complete():
    endless = variant(is_truncated=lambda self, state, params: jnp.zeros((), bool))
    measured = play(endless, right, single(Params()), (), jax.random.key(0), 3)
    assert measured["length"].values.tolist() == [5, 5, 5]
    assert not measured["complete"].values.any()


def test_time_limit_is_that_of_the_longest_task():
    limits = lambda *x: Params(max_steps_in_episode=jnp.array(x))
    of = lambda train=None, test=None: Tasks(
        sample=lambda key: Params(max_steps_in_episode=7), train=train, test=test
    ).time_limit()
    assert of() == 7
    assert of(train=limits(3, 9)) == 9
    assert of(test=limits(3, 11), train=limits(3, 9)) == 11
    drawn = Tasks(sample=lambda key: Params(max_steps_in_episode=jax.random.randint(key, (), 1, 6)), test=limits(2))
    assert drawn.time_limit() == 5
    with pytest.raises(EnvCheckError, match="need a time limit, and State has no max_steps_in_episode"):
        single(State(x=0.0, time=0)).time_limit()
    assert Played(Line()).name == "Line"


@pytest.mark.parametrize("reward", [np.int64(3_000_000_000), np.uint64(2**63), -(10**20), np.uint32(4_000_000_000)])
def test_rewards_of_many_bits_are_paid_in_full(reward):
    """JAX cuts whole numbers of the host to 32 bits."""
    np.testing.assert_array_equal(played(variant(reward=lambda self, x: reward), 1)[1].reward, np.float32(reward))


def test_a_state_in_half_precision_may_be_stepped_by_python_numbers():
    half = lambda self, key, p: (jnp.zeros(1), State(x=jnp.zeros((), jnp.bfloat16), time=jnp.zeros((), jnp.int32)))
    counts = after_step(lambda o, s, *rest: (o, s.replace(x=1.0), *rest))
    played(variant(reset_env=half, step_env=counts), 2)


def test_whole_numbers_that_may_not_fit_are_refused():
    """They were cut to their last bits; those of the host are looked at."""
    bytes_of = lambda obs: variant(
        observation_space=lambda self, params=None: spaces.Box(0, 255, (1,), jnp.uint8),
        reset_env=lambda self, key, p: (jnp.zeros(1, jnp.uint8), State(x=jnp.zeros(()), time=jnp.zeros((), jnp.int32))),
        step_env=after_step(lambda o, *rest: (obs, *rest)),
    )
    with pytest.raises(EnvCheckError, match=r"the observation is int32\[1\], it must be uint8\[1\]"):
        played(bytes_of(jnp.full(1, 300, jnp.int32)), 3)
    with pytest.raises(EnvCheckError, match=r"the observation is int64\[1\], it must be uint8\[1\]"):
        played(bytes_of([300]), 3)
    played(bytes_of([7]), 3)
    played(bytes_of(np.array([255])), 3)
    narrow = variant(
        reset_env=lambda self, key, p: (jnp.zeros(1), State(x=jnp.zeros(()), time=jnp.zeros((), jnp.uint8))),
        step_env=after_step(lambda o, s, *rest: (o, s.replace(time=s.time.astype(jnp.int32) - 1), *rest)),
    )
    with pytest.raises(EnvCheckError, match=r"the state's time after a step is int32\[\], it must be a scalar, uint8"):
        played(narrow, 3)
