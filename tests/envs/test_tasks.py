"""Task distributions: the time limit is known before anything is compiled, also under a trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import jaxrl_hier
from jaxrl_envs.check import check_env
from jaxrl_envs.contract import EnvCheckError
from jaxrl_envs.tasks import Tasks, single
from jaxrl_envs.trial import Trial
from jaxrl_hier.building import environment
from jaxrl_hier.checks import UsageError
from tests.line import Line
from tests.line import Params as LineParams
from tests.sizes import SIZES


@struct.dataclass
class Params:
    target: jax.Array
    max_steps_in_episode: int = 20


def given(key):
    """The limit is a number."""
    return Params(target=jax.random.uniform(key))


def drawn(key):
    """The limit is part of the task."""
    return Params(target=jax.random.uniform(key), max_steps_in_episode=20 + 0 * jax.random.randint(key, (), 0, 9))


@pytest.mark.parametrize("sample", [given, drawn])
def test_time_limit(sample):
    tasks = Tasks(sample=sample)
    assert tasks.time_limit() == 20
    with_limit = lambda x: x + tasks.time_limit()
    assert jax.jit(with_limit)(1.0) == 21
    assert jax.grad(with_limit)(1.0) == 1


def test_time_limit_of_tasks_that_grow():
    """The longest of the tasks that follow, for what must hold a whole episode."""
    longer = lambda key, task: task.replace(max_steps_in_episode=jnp.minimum(task.max_steps_in_episode + 1, 90))
    for sample in (given, drawn):
        tasks = Tasks(sample=sample, resample=longer)
        assert tasks.time_limit() == 90
        assert jax.jit(lambda x, tasks=tasks: x + tasks.time_limit())(1.0) == 91


@pytest.mark.parametrize("limit", [0, -1])
@pytest.mark.parametrize("name", ["ppo", "dqn", "rl2"])
def test_a_time_limit_below_a_step_is_refused(name, limit):
    """Training would play episodes of one step, and evaluations none."""
    env = Line()
    tasks = single(env.default_params.replace(max_steps_in_episode=limit))
    with pytest.raises(ValueError, match=f"max_steps_in_episode must be at least 1 in every task, got {limit}"):
        jaxrl_hier.train(name, env, tasks, **SIZES[name], quiet=True)


def test_time_limit_of_a_task_that_is_being_traced():
    limit = lambda scale: 0 * scale + single(Params(target=scale)).time_limit()
    assert jax.jit(limit)(2.0) == 20


def test_batches_are_as_many_different_tasks():
    """Drawn where there is no end of tasks; the first of those that are given."""
    tasks = Tasks(sample=given)
    for batch in (tasks.train_batch, tasks.test_batch):
        drawn = batch(8, jax.random.key(0)).target
        assert len(np.unique(np.concatenate([drawn, batch(8, jax.random.key(1)).target]))) == 16
    batch = Params(target=jnp.arange(5.0), max_steps_in_episode=jnp.full(5, 20))
    held_out = tasks._replace(train=batch, test=jax.tree.map(lambda x: -x, batch))
    assert held_out.train_batch(3, jax.random.key(0)).target.tolist() == [0, 1, 2]
    assert held_out.test_batch(2, jax.random.key(0)).target.tolist() == [0, -1]


def changing(first, following):
    """Tasks whose target changes from episode to episode."""
    resample = lambda key, task: task.replace(target=following(task.target))
    return Tasks(sample=lambda key: LineParams(target=first), resample=resample)


def test_a_task_that_changes_keeps_its_dtypes():
    """Numbers of Python's are taken to fit."""
    grows = changing(1.0, lambda x: 1.5 * x)
    step = jax.jit(grows.following)
    task = step(None, step(None, grows.sample(None)))
    assert task.target == 2.25
    assert not task.target.weak_type
    whole = changing(1.0, lambda x: 2)
    assert whole.following(None, whole.sample(None)).target.dtype == jnp.float32


@pytest.mark.parametrize(
    ("tasks", "found"),
    [
        (changing(1, lambda x: 1.5 * x), r"is float32\[\], it must be a scalar, int32, as tasks.sample gives it"),
        (changing(jnp.bfloat16(1), lambda x: jnp.float32(x) / 3), r"is float32\[\], it must be a scalar, bfloat16"),
        (changing(1.0, lambda x: jnp.ones(2) * x), r"is float32\[2\], it must be a scalar, float32"),
    ],
)
def test_a_task_that_would_be_cut_is_refused(tasks, found):
    """It stayed what it was in whole numbers."""
    found = rf"the task after an episode: (task\.)?target {found}"
    with pytest.raises(EnvCheckError, match=found):
        check_env(Line(), tasks, episodes=1)
    trial = Trial(Line(), 2)
    for env, its_tasks in ((Line(), tasks), (trial, trial.tasks_of(tasks))):
        with pytest.raises(UsageError, match=found):
            jaxrl_hier.make("dqn", env, its_tasks, **SIZES["dqn"])


@pytest.mark.parametrize("name", ["test", "train"])
def test_given_tasks_are_played_in_the_dtypes_of_those_that_are_drawn(name):
    """A state that begins with the task's number had another dtype in evaluation."""
    given = jax.vmap(lambda x: LineParams(target=x))(jnp.arange(3))
    drawn = lambda key: LineParams(target=jax.random.uniform(key))
    tasks = environment(Line(), Tasks(sample=drawn, **{name: given}))[1]
    assert getattr(tasks, name).target.dtype == jnp.float32
    halves = jax.vmap(lambda x: LineParams(target=x))(jnp.arange(3) / 2)
    tasks = Tasks(sample=lambda key: LineParams(target=1), **{name: halves})
    found = rf"tasks\.{name}: target is float32\[3\], it must be int32\[3\], as tasks.sample gives it"
    with pytest.raises(UsageError, match=found):
        environment(Line(), tasks)
    with pytest.raises(EnvCheckError, match=found):
        check_env(Line(), tasks, episodes=1)
