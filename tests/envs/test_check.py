"""The conformance checker finds each kind of fault, and passes what is right."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from gymnax.wrappers.purerl import GymnaxWrapper

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.check import EnvCheckError, check_env
from jaxrl_envs.navigation2d import Navigation2D, NavigationParams
from jaxrl_envs.tasks import Tasks, from_batch, single
from jaxrl_hier.checks import UsageError
from tests.compiling import needs_float16


class Faulty(Navigation2D):
    """Navigation2D with one fault, given as a function of what a step returns."""

    def __init__(self, spoil=lambda key, out: out, limit_off_by=0):
        self.spoil, self.limit_off_by = spoil, limit_off_by

    def step_env(self, key, state, action, params):
        return self.spoil(key, super().step_env(key, state, action, params))

    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode + self.limit_off_by


def change(position, function):
    return lambda key, out: (*out[:position], function(out[position]), *out[position + 1 :])


@pytest.mark.parametrize(
    ("env", "message"),
    [
        pytest.param(
            Faulty(change(0, lambda obs: obs.astype(jnp.float16))),
            "float16, its space says float32",
            marks=needs_float16,
        ),
        (Faulty(change(0, lambda obs: obs[:1])), r"has shape \[1\], its space says \[2\]"),
        (Faulty(change(0, lambda obs: obs + 100)), "lies outside its space"),
        (Faulty(change(2, lambda r: r[None])), "reward is not a float scalar"),
        (Faulty(change(2, lambda r: r * jnp.nan)), "NaN"),
        (Faulty(change(3, lambda d: d.astype(jnp.float32))), "terminated is not a boolean scalar"),
        (
            Faulty(change(1, lambda s: s.replace(time=s.time.astype(jnp.float32)))),
            "changes the state's shapes or dtypes",
        ),
        (Faulty(limit_off_by=1), "the time limit is 100"),
        (Faulty(limit_off_by=-3), "is_truncated is True after 97 steps"),
    ],
)
def test_finds(env, message):
    with pytest.raises(EnvCheckError, match=message):
        check_env(env, episodes=1)


class Parts(Navigation2D):
    """Observations are a dict."""

    def observation_space(self, params=None):
        return spaces.Dict({"at": spaces.Box(-np.inf, np.inf, (2,), jnp.float32), "time": spaces.Discrete(101)})

    def get_obs(self, state, params=None, key=None):
        return {"at": super().get_obs(state), "time": state.time}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda obs: obs, ""),
        (lambda obs: obs | {"time": obs["time"] + 200}, r"observation after a step\['time'\] lies outside its space"),
        (lambda obs: {"at": obs["at"]}, "observation after a step is a dict of at, its space one of at, time"),
    ],
)
def test_looks_at_the_parts_of_a_dict(spoil, message):
    env = Parts()
    step = env.step_env
    env.step_env = lambda *x: (lambda obs, *rest: (spoil(obs), *rest))(*step(*x))
    with nullcontext() if not message else pytest.raises(EnvCheckError, match=message):
        check_env(env, episodes=1)


class EndsByTime(Navigation2D):
    """The older style of gymnax: the end of time is a termination."""

    def step_env(self, key, state, action, params):
        obs, after, reward, terminated, info = super().step_env(key, state, action, params)
        return obs, after, reward, terminated | (after.time >= params.max_steps_in_episode), info


def test_finds_terminations_at_the_time_limit():
    """Also where no random episode lasts until then; learners would take the value of the state there for 0."""
    message = "step_env terminates at the time limit, max_steps_in_episode, so that the state there is worth 0"
    for tasks in (None, single(Navigation2D().default_params.replace(max_steps_in_episode=jnp.int32(5)))):
        with pytest.raises(EnvCheckError, match=message):
            check_env(EndsByTime(), tasks, episodes=1, max_steps=3)
    finite = EndsByTime()
    finite.finite_horizon = True
    check_env(finite, episodes=1)


def test_finds_hidden_state():
    env = Faulty()
    count = iter(range(10**9))
    env.spoil = lambda key, out: (
        out[0] + jax.pure_callback(lambda: jnp.float32(next(count)), jnp.float32(0)),
        *out[1:],
    )
    with pytest.raises(EnvCheckError, match="the same key gives two different steps"):
        check_env(env, episodes=1)


def test_finds_tasks_that_do_not_stack():
    sizes = iter((2, 3) * 100)
    tasks = Tasks(sample=lambda key: NavigationParams(goal=jnp.zeros(2), max_steps_in_episode=jnp.full(next(sizes), 9)))
    env = Navigation2D()
    env.is_truncated = lambda state, params: state.time >= params.max_steps_in_episode[0]
    with pytest.raises((EnvCheckError, TypeError)):
        check_env(env, tasks, episodes=2)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_gymnax_environments_pass(name):
    check_env(*jaxrl_envs.make(name), episodes=2)


@pytest.mark.parametrize("name", ["bandit-independent", "point-maze-test", "four-rooms-moving-goal"])
def test_environments_without_a_test_of_their_own_pass(name):
    check_env(*jaxrl_envs.make(name), episodes=1)


def test_gymnax_four_rooms_does_not():
    with pytest.raises(EnvCheckError, match="int32, its space says float32"):
        check_env(*jaxrl_envs.make("FourRooms-misc"), episodes=1)


def test_unknown_name_gives_the_nearest():
    with pytest.raises(ValueError, match="nearest: navigation2d"):
        jaxrl_envs.make("navigation")
    with pytest.raises(ValueError, match="CartPole-v1"):
        jaxrl_envs.make("cartpole")


def test_from_batch_draws_uniformly_and_refuses_ragged_leaves():
    tasks = from_batch(jnp.arange(5.0))
    drawn = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 5000))
    counts = jnp.bincount(drawn.astype(int), length=5)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 18.5  # χ², 4 degrees of freedom, p = 0.001
    assert jax.jit(from_batch(np.arange(5.0)).sample)(jax.random.key(0)) in range(5)  # NumPy's arrays, too
    with pytest.raises(ValueError, match="one leading axis of tasks"):
        from_batch(NavigationParams(goal=jnp.zeros((3, 2))))
    with pytest.raises(ValueError, match="the batch holds no tasks"):
        from_batch(jnp.zeros((0, 2)))


@pytest.mark.parametrize("which", ["test", "train"])
def test_tasks_without_a_leading_axis_are_found_by_the_checker_and_before_training(which):
    """The default of a field that was forgotten is such a number."""
    env = Navigation2D()
    tasks = Tasks(lambda key: env.default_params, **{which: NavigationParams(goal=jnp.zeros((3, 2)))})
    found = rf"every leaf of tasks\.{which} needs one leading axis of tasks, and max_steps_in_episode has shape \[\]"
    with pytest.raises(EnvCheckError, match=found):
        check_env(env, tasks)
    with pytest.raises(UsageError, match=found):
        jaxrl_hier.train("ppo", env, tasks)


class ResetsItself(GymnaxWrapper):
    """A wrapper that begins the next episode in the last step of one."""

    def step(self, key, state, action, params=None):
        obs, after, reward, terminated, truncated, info = self._env.step(key, state, action, params)
        begun = self._env.reset(key, params)
        obs, after = jax.tree.map(lambda x, y: jnp.where(terminated | truncated, x, y), begun, (obs, after))
        return obs, after, reward, terminated, truncated, info


def test_finds_a_wrapper_that_resets_by_itself():
    """Learners would take the first observation of an episode for the last one of another."""
    with pytest.raises(EnvCheckError, match="the state at an episode's end is that of the next one: do not reset"):
        check_env(ResetsItself(Navigation2D()), episodes=1)
