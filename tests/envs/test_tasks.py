"""Task distributions: the time limit is known before anything is compiled, also under a trace."""

import jax
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
