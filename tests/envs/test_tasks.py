"""Task distributions: the time limit is known before anything is compiled, also under a trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_envs.tasks import Tasks, single


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
