"""What does not fit into memory is refused, or its failure told, in one line with the setting that makes it large."""

import resource
import time
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import jaxrl_hier
from jaxrl_hier import host_training
from jaxrl_hier.building import arrays_of
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import room
from jaxrl_hier.engine.logging import Progress

TINY = {"hidden": (64,), "warmup_steps": 8, "environments": 1, "iterations": 1, "log_every": 1, "quiet": True}


def test_an_iteration_beyond_the_machine_is_refused_before_it_runs(monkeypatch):
    """Its state is not."""
    monkeypatch.setattr(room, "free_bytes", lambda: 2**22)
    with pytest.raises(UsageError, match=r"^an iteration takes .* beside the state .*; batch_size makes it large"):
        jaxrl_hier.train("dqn", **TINY | {"batch_size": 2**14, "capacity": 2**14})


def test_an_evaluation_beyond_the_machine_says_which_checkpoint_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(room, "free_bytes", lambda: 2**20)
    settings = {"eval_episodes": 2**16, "capacity": 500, "checkpoint_every": 1, "tensorboard": False}
    with pytest.raises(
        UsageError, match=r"^an evaluation takes .*; the checkpoint of iteration 1 is kept; eval_episodes makes"
    ):
        jaxrl_hier.train("dqn", out=tmp_path / "run", **TINY | settings)


def test_allocations_that_fail_are_told():
    """One that does, and errors as compiling raises them; other failures stay what they are."""
    asked = r"^an iteration ran out of memory, asking for 262144\.0 GiB$"
    with pytest.raises(room.NoRoomError, match=asked), room.out_of_memory("iterations"):
        jnp.zeros(2**46).block_until_ready()
    with pytest.raises(room.NoRoomError, match=r"^an evaluation ran out of memory$"), room.out_of_memory("evaluation"):
        raise MemoryError("std::bad_alloc")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), room.out_of_memory("evaluation"):
        raise jax.errors.JaxRuntimeError("INTERNAL: no such device")


def test_a_limit_on_addresses_counts(monkeypatch):
    most = 2**40
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (most, most))
    assert 0 < room._left_to_process() < most - 2**20
    monkeypatch.setattr(room, "_available", lambda: 2**50)
    assert room.free_bytes() <= room._left_to_process() + 2**30


def test_arrays_of_a_program_are_found_in_loops_and_calls():
    def program(x):
        looped = jax.lax.fori_loop(0, 3, lambda i, x: jnp.sin(jnp.outer(x, x)).sum(axis=0), x)
        return jax.lax.cond(looped[0] > 0, jax.jit(lambda x: jnp.tile(x, 5)), lambda x: jnp.zeros(35), looped)

    shapes = {x.shape for x in arrays_of(jax.make_jaxpr(program)(jnp.zeros(7)).jaxpr)}
    assert {(7, 7), (35,)} <= shapes


def test_on_the_host_it_is_the_same(monkeypatch, capsys):
    """An iteration that is too large is refused, an allocation of the environments that fails is told, and so is a
    warm-up that takes long."""
    cart = partial(jaxrl_hier.train, "dqn", "gymnasium:CartPole-v1")
    with monkeypatch.context() as small:
        small.setattr(room, "free_bytes", lambda: 2**22)
        with pytest.raises(UsageError, match=r"^an iteration takes .* beside the state .*; batch_size makes it large"):
            cart(**TINY | {"batch_size": 2**14, "capacity": 2**14})
    rollout, calls = host_training.rollout, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:  # after the warm-up
            raise MemoryError
        time.sleep(0.3)
        return rollout(*arguments)

    monkeypatch.setattr(host_training, "rollout", failing)
    monkeypatch.setattr(Progress, "PATIENCE", 0.1)
    with pytest.raises(UsageError, match=r"^an iteration ran out of memory; \w+ makes it large$"):
        cart(**TINY | {"batch_size": 16, "capacity": 500, "quiet": False})
    assert "still starting the environments after 0 s\n" in capsys.readouterr().err
