"""An environment that breaks the contract gets one line from every learner, and no traceback from inside a scan."""

import jax.numpy as jnp
import pytest
from gymnax.wrappers.purerl import GymnaxWrapper

import jaxrl_envs
import jaxrl_hier
from jaxrl_hier import UsageError
from tests.line import Line, after_step
from tests.sizes import SIZES

RUN = {"iterations": 2, "log_every": 1, "checkpoint_every": 2, "evaluate_every": 0, "quiet": True}
DISCRETE = ("option-critic", "fun", "dqn", "maml", "promp", "reptile", "rl2")
BOXES = ("ddpg", "td3", "sac", "hiro", "pearl", "maml", "rl2")
BROKEN = {
    "reward is float32\\[1\\], it must be a scalar": {"reward": lambda self, x: jnp.ones(1)},
    "step_env raises ZeroDivisionError": {"reward": lambda self, x: 1 / 0},
    "step_env returns .*, this one returns 4 values": {"step_env": after_step(lambda *returned: returned[:4])},
}


@pytest.mark.parametrize(
    ("name", "discrete"), [*((name, True) for name in DISCRETE), *((name, False) for name in BOXES)]
)
def test_one_line_from_every_learner(name, discrete):
    sizes = SIZES[name] | ({"goal_dimensions": (0,)} if name == "hiro" else {})
    for line, methods in BROKEN.items():
        env = type("Broken", (Line,), methods)(discrete)
        with pytest.raises(UsageError, match=f"Broken breaks the environment contract: (the )?{line}") as error:
            jaxrl_hier.train(name, env, **RUN, **sizes)
        assert "\n" not in str(error.value)
        assert error.value.__suppress_context__


def test_an_exception_elsewhere_is_looked_into_by_the_checker():
    """The learner fails, not a step: the action space says another thing than the step takes."""
    env = type("Broken", (Line,), {"action_space": lambda self, params=None: 1 / 0})()
    with pytest.raises(UsageError, match=r"Broken breaks the environment contract: .*ZeroDivisionError"):
        jaxrl_hier.train("option-critic", env, **RUN, **SIZES["option-critic"])


def test_an_exception_that_is_not_the_environments_stays_what_it_is(monkeypatch):
    from jaxrl_hier.hierarchical import option_critic

    monkeypatch.setattr(option_critic, "losses", lambda *x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        jaxrl_hier.train("option-critic", Line(), **RUN, **SIZES["option-critic"])


class TenTimes(GymnaxWrapper):
    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, truncated, info = self._env.step(key, state, action, params)
        return obs, state, 10 * reward, terminated, truncated, info


class TenTimesToo(TenTimes):
    def compute_reward(self, achieved, desired, params):
        return 10 * self._env.compute_reward(achieved, desired, params)


def test_hindsight_refuses_rewards_that_a_wrapper_changed():
    env, tasks = jaxrl_envs.make("bit-flipping-15")
    with pytest.raises(UsageError, match="differ from its compute_reward in 100% of random steps"):
        jaxrl_hier.make("her-dqn", TenTimes(env), tasks, **SIZES["her-dqn"])
    jaxrl_hier.make("her-dqn", TenTimesToo(env), tasks, **SIZES["her-dqn"])
