"""Runs of billions of steps, begun shortly before their numbers become large."""

import gc
import struct

import jax.numpy as jnp
import pytest
from tensorboardX.proto.event_pb2 import Event

import jaxrl_hier
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.chunk import BLOCK
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.logging import read_jsonl
from jaxrl_hier.engine.train import RunConfig, train
from jaxrl_hier.engine.types import Average
from tests.engine.test_killed_runs import drift

LAST = 2**31 - 1  # iteration that an int32 can count


def events(folder):
    """Steps and values of TensorBoard's files, in order."""
    found = []
    for path in sorted(folder.glob("events*")):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            place += 12 + length + 4
    return found


def moved(folder, algorithm, iteration):
    """A run that has come to `iteration`."""
    run = RunConfig(iterations=2, checkpoint_every=2, quiet=True)
    state = train(algorithm, run, directory=folder).state
    checkpoint.save(folder, state.replace(iteration=jnp.full((1,), iteration, jnp.int32)), iteration)


@pytest.mark.parametrize(
    ("iteration", "env_steps"),
    [(998, 10**6), (2**13 - 2, 2**20), (LAST - 2, 1), (LAST - 2, 2**20)],
    ids=["a billion steps", "2^33 steps", "the last iterations", "and their steps"],
)
def test_steps_are_counted_right(tmp_path, iteration, env_steps):
    algorithm = drift()._replace(env_steps=env_steps)
    moved(tmp_path / "run", algorithm, iteration)
    run = RunConfig(iterations=iteration + 2, checkpoint_every=2 if iteration % 2 == 0 else 1, quiet=True)
    result = train(algorithm, run, directory=tmp_path / "run", resume=True)
    assert [row["iteration"] for row in result.rows[-2:]] == [iteration + 1, iteration + 2]
    assert [row["env_steps"] for row in result.rows[-2:]] == [i * env_steps for i in (iteration + 1, iteration + 2)]
    assert read_jsonl(tmp_path / "run" / "metrics.jsonl") == result.rows
    assert result.rows[-1]["return"] != result.rows[-2]["return"]
    steps = [step for step, tag, _ in events(tmp_path / "run" / "tensorboard" / "seed0") if tag == "return"]
    assert steps[-2:] == [iteration + 1, iteration + 2]
    assert checkpoint.iterations(tmp_path / "run")[-1] == result.state.iteration[0] == iteration + 2
    assert list(load_evaluations(tmp_path / "run"))[-1] == iteration + 2


def test_more_iterations_than_a_device_counts_are_refused():
    with pytest.raises(UsageError, match=r"^iterations must be at most 2147483647, the largest integer of 32 bits"):
        jaxrl_hier.train("q-learning", iterations=LAST + 1)


@pytest.mark.parametrize("iterations", [BLOCK, BLOCK + 1, 40_000_000])
def test_means_do_not_depend_on_how_many_iterations_a_row_has(iterations):
    """Of a metric of 0.1 an iteration, and of episodes that are counted beyond 2²⁴, where float32 stops."""
    step = lambda state: (
        state.replace(iteration=state.iteration + 1),
        {"constant": jnp.float32(0.1), "episodes": Average(jnp.float32(1.0), jnp.float32(1.0))},
    )
    run = RunConfig(iterations=iterations, log_every=iterations, checkpoint_every=iterations, quiet=True)
    row = train(drift()._replace(step=step), run).rows[-1]
    assert (row["constant"], row["episodes"]) == (pytest.approx(0.1, rel=1e-4), 1.0)
    assert row["iteration"] == iterations


def test_saving_leaves_nothing_in_memory(tmp_path):
    """A checkpoint would leave 24 lists of orbax's statistics; caches of paths, which are bounded, grow by a few."""
    state = train(drift(), RunConfig(iterations=1, quiet=True)).state

    def objects_after(saves):
        for iteration in range(1, 1 + saves):
            checkpoint.save(tmp_path, state, iteration)
        gc.collect()
        return len(gc.get_objects())

    objects_after(4)  # which load what all need
    before = objects_after(1)
    assert objects_after(8) - before < 8 * 10
