"""Every learner's evaluation plays until the longest of its tasks ends, whatever the default params say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers.purerl import LogWrapper

import jaxrl_hier
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.checks import UsageError
from tests.line import Line, Params, variant
from tests.sizes import SIZES

LIMITS = jnp.array([3, 4, 6, 13])  # that of the default params is 5
TASKS = Tasks(
    sample=lambda key: Params(max_steps_in_episode=jax.random.choice(key, LIMITS[1:3])),
    resample="episode",
    test=Params(target=jnp.zeros(4), max_steps_in_episode=LIMITS),
)
OF_TEST_TASKS = {  # learners that are evaluated on each of the test tasks
    "maml": {"horizon": None},
    "rl2": {"episodes_per_trial": 2},
    "varibad": {"episodes_per_trial": 2},
    "pearl": {"train_tasks": 4, "initial_steps": 13, "prior_steps": 13, "posterior_steps": 13, "eval_tasks": 4},
}
OF_DRAWS = {  # learners that are evaluated on draws from them
    "option-critic": {"eval_episodes": 64},
    "fun": {"eval_episodes": 64},
    "dqn": {"eval_episodes": 64},
    "sac": {"eval_episodes": 64},
    "hiro": {"goal_dimensions": (0,), "eval_episodes": 64},
}
BOXES = ("sac", "hiro", "pearl")


def evaluated(name, settings, env):
    """Of the untrained learner: return = length = time limit, since each step pays 1."""
    algorithm = jaxrl_hier.make(name, env, TASKS, **SIZES[name] | settings)

    @jax.jit
    def measure(key):
        return algorithm.evaluate(algorithm.init(key), key)

    return {k: np.asarray(m.values) for k, m in measure(jax.random.key(0)).items()}


@pytest.mark.parametrize("name", OF_DRAWS)
def test_of_draws_from_the_test_tasks(name):
    """And not of the tasks of training."""
    seen = evaluated(name, OF_DRAWS[name], LogWrapper(Line(name not in BOXES)))
    np.testing.assert_array_equal(seen["return"], seen["length"])
    assert set(seen["length"].tolist()) == set(LIMITS.tolist())
    assert seen["complete"].all()


@pytest.mark.parametrize("name", OF_TEST_TASKS)
def test_of_the_test_tasks(name):
    seen = evaluated(name, OF_TEST_TASKS[name], Line(name not in BOXES))
    worth = np.asarray(LIMITS)
    np.testing.assert_allclose(
        seen["return"].reshape(4, -1), np.broadcast_to(worth[:, None], (4, seen["return"].size // 4))
    )
    assert (seen["complete"] == 1).all()
    if name in ("rl2", "varibad"):
        np.testing.assert_array_equal(seen["length"], np.stack([LIMITS, LIMITS], axis=1))
        np.testing.assert_array_equal(seen["trial_return"], 2 * worth)


SHORTER = Tasks(  # episodes of 6 steps, and after the first of 3
    sample=lambda key: Params(max_steps_in_episode=jnp.int32(6)),
    resample=lambda key, task: task.replace(max_steps_in_episode=jnp.int32(3)),
)


@pytest.mark.parametrize("name", [*OF_DRAWS, "ppo", "option-ppo", "recurrent-ppo"])
def test_of_tasks_that_change_over_a_lifetime_as_training_has_them_now(name):
    env, settings = Line(name not in BOXES), OF_DRAWS.get(name, {})
    algorithm = jaxrl_hier.make(name, env, SHORTER, **SIZES[name] | settings)

    @jax.jit
    def measured(key):
        state = algorithm.init(key)
        later = jax.lax.fori_loop(0, 4, lambda _, state: algorithm.step(state)[0], state)
        return [algorithm.evaluate(state, key)["length"].values for state in (state, later)]

    first, later = measured(jax.random.key(0))
    assert set(later.ravel().tolist()) == {3}
    if name not in ("dqn", "sac", "hiro", "fun"):  # whose `init` plays
        assert set(first.ravel().tolist()) == {6}


@pytest.mark.parametrize("name", ["maml", "pearl", "mlsh", "maml-options"])
def test_tasks_that_change_over_a_lifetime_are_refused_by_who_draws_new_ones(name):
    env, phases = Line(name not in BOXES), ("initial_steps", "prior_steps", "posterior_steps")
    sizes = dict.fromkeys(phases, 12) if name == "pearl" else {}
    with pytest.raises(UsageError, match=r"tasks\.resample must be never or episode here"):
        jaxrl_hier.make(name, env, SHORTER, **SIZES[name] | sizes)


def test_what_a_horizon_cuts_is_said():
    seen = evaluated("maml", {"horizon": 4}, Line())
    assert "return_completed" not in seen
    np.testing.assert_allclose(seen["return"][:, 0], [3, 4, 4, 4])
    np.testing.assert_allclose(seen["complete"][:, 0], [1, 1, 0, 0])


def test_what_is_cut_is_said_at_the_end_of_training():
    from jaxrl_hier.engine.evaluation import cut_share, describe

    endless = variant(is_truncated=lambda self, state, params: jnp.zeros((), bool))
    settings = SIZES["option-critic"] | {"iterations": 1, "log_every": 1, "checkpoint_every": 1, "evaluate_every": 0}
    evaluation = jaxrl_hier.train("option-critic", endless, quiet=True, **settings).evaluation
    assert cut_share(evaluation) == 1
    assert describe(evaluation) == "return 5.00 (100% of the episodes were cut)"
