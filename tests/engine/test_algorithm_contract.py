"""Mistakes in an algorithm of one's own are said in one line, before anything is trained."""

from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_hier
from jaxrl_envs.tasks import single
from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.chunk import Evaluation
from jaxrl_hier.engine.contract import ContractError
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.train import Compiled, train
from jaxrl_hier.engine.types import Agent, Algorithm, Average, NamedArray, TrainState
from jaxrl_hier.settings import BaseConfig
from tests.probes import Corridor, CorridorParams

TRACED = []  # a line for each trace of `evaluate`


def algorithm(metrics=None, measured=None, after=lambda state: state, pair=True, started=None):
    """Counts its iterations; what it returns beside that is what is tested."""

    def init(key):
        state = TrainState(jnp.zeros(3), (), jnp.zeros(2), (), key, jnp.int32(0))
        return started(state) if started else state

    def step(state):
        state = after(state.replace(iteration=state.iteration + 1))
        return (state, {"a": state.params.sum()} if metrics is None else metrics) if pair else state

    def evaluate(state, key):
        TRACED.append("evaluate")
        return {"return": NamedArray(state.params, ("episode",))} if measured is None else measured

    agent = Agent(init=lambda key: jnp.zeros(3), start=lambda params, key: (), act=None)
    return Algorithm(init, step, evaluate, agent, env_steps=1)


def run_of(made, seeds=1):
    return train(made, RunConfig(iterations=2, log_every=1, quiet=True, seeds=seeds))


FAULTS = {
    "array metric": ({"metrics": {"k": jnp.zeros(4)}}, "the metric 'k' must be one number, or an Average"),
    "a column of the log": ({"metrics": {"seed": 1.0}}, "the metric 'seed' needs another name; the engine itself logs"),
    "the axis of seeds": (
        {"measured": {"return": NamedArray(jnp.zeros(5), ("seed",))}},
        "evaluate: 'return' has an axis 'seed', which the engine adds",
    ),
    "text": ({"metrics": {"k": "x"}}, "the metric 'k' must be one number, or an Average of numbers, got 'x'"),
    "array total": ({"metrics": {"k": Average(jnp.zeros(4), jnp.ones(()))}}, "got float32[4]"),
    "no metrics": ({"metrics": []}, "step must return its metrics as a dict, name -> number, got a list"),
    "no pair": ({"pair": False}, "step must return a pair, state and metrics, got a TrainState"),
    "not counted": (
        {"after": lambda state: state.replace(iteration=jnp.int32(0))},
        "step must add 1 to iteration, since checkpoints and keys follow it; after iteration 1 it is 0",
    ),
    "another shape": (
        {"after": lambda state: state.replace(params=jnp.zeros(4))},
        "params is float32[3] before and float32[4] after",
    ),
    "another structure": (
        {"after": lambda state: state.replace(learner=state.params)},
        "step must return a state of the same structure as it takes: learner is in only one of them",
    ),
    "no state": ({"started": lambda state: state.params}, "init must return a TrainState, got float32[3]"),
    "real iteration": (
        {"started": lambda state: state.replace(iteration=0.0)},
        "init must return a state whose iteration is jnp.int32(0), got 0.0",
    ),
    "plain array": (
        {"measured": {"return": jnp.zeros(5)}},
        "evaluate must return NamedArrays, and 'return' is float32[5]: NamedArray(x, axes) names its axes, such as "
        '("episode",)',
    ),
    "a bare number": ({"measured": {"return": 3.0}}, "'return' is 3.0: NamedArray(x, axes) names its axes, such as ()"),
    "no measurements": ({"measured": jnp.zeros(5)}, "evaluate must return a dict, name -> NamedArray, got float32[5]"),
    "an axis too few": (
        {"measured": {"return": NamedArray(jnp.zeros((5, 2)), ("episode",))}},
        "'return' is float32[5, 2] and its axes are ('episode',); each axis needs one name",
    ),
}


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line(fault, seeds):
    returned, message = FAULTS[fault]
    with pytest.raises(ContractError) as said:
        run_of(algorithm(**returned), seeds)
    assert message in str(said.value)
    assert "\n" not in str(said.value)


def test_a_measurement_at_fault_is_said_with_the_first_iterations(monkeypatch):
    ran, run = [], Compiled.run

    def counted(trainer, state):
        ran.append(state)
        return run(trainer, state)

    monkeypatch.setattr(Compiled, "run", counted)
    with pytest.raises(ContractError, match="evaluate must return"):
        run_of(algorithm(measured={"return": jnp.zeros(5)}))
    assert len(ran) == 1


@pytest.mark.parametrize("seeds", [1, 2])
def test_metrics_may_be_numbers_of_python_and_numpy(seeds):
    metrics = {"k": 3, "b": True, "x": 0.5, "n": np.float64(2), "i": np.int64(4), "a": Average(6, 4)}
    rows = run_of(algorithm(metrics=metrics), seeds).rows
    assert len(rows) == 2 * seeds
    assert all(row.items() >= {"k": 3.0, "b": 1.0, "x": 0.5, "n": 2.0, "i": 4.0, "a": 1.5}.items() for row in rows)


@pytest.mark.parametrize("params", [(), jnp.zeros(3, jnp.int32)])
def test_parameters_need_no_real_numbers(params):
    made = algorithm(metrics={"a": 1.0}, started=lambda state: state.replace(params=params))
    made = made._replace(evaluate=lambda state, key: {"return": NamedArray(state.world, ("episode",))})
    assert len(run_of(made, 2).rows) == 4


def test_an_evaluation_that_was_checked_is_not_traced_again():
    made = algorithm()
    state = jax.vmap(made.init)(jax.random.split(jax.random.key(0), 2))
    evaluate = Evaluation(made)
    TRACED.clear()
    evaluate.trace(state)
    evaluate(state)
    assert TRACED == ["evaluate"]


@dataclass(frozen=True)
class Config(BaseConfig):
    """No settings."""

    environments: int = 2
    """of them"""


@pytest.fixture
def named(monkeypatch):
    monkeypatch.setattr(registry, "ALGORITHMS", dict(registry.ALGORITHMS))

    def register(made, config=Config):
        jaxrl_hier.register("mine", SimpleNamespace(Config=config, make=lambda *_: made), env="four-rooms")

    return register


def test_the_algorithm_is_named(named):
    named(algorithm(metrics={"k": jnp.zeros(4)}))
    tasks = single(CorridorParams())
    with pytest.raises(UsageError, match=r"^the algorithm mine breaks its contract: step: the metric 'k'"):
        jaxrl_hier.train("mine", Corridor(), tasks, iterations=1, log_every=1, quiet=True)


@dataclass
class Plain:
    """Derives from nothing."""

    environments: int = 2


class Bare(BaseConfig):
    """No dataclass of its own."""

    environments: int = 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Plain, "the Config of mine does not derive from jaxrl_hier.settings.BaseConfig: write @dataclass"),
        (Bare, "the Config of mine is no dataclass of its own: write @dataclass"),
        (Config(), "does not derive from"),
    ],
)
def test_a_config_that_cannot_be_one(named, config, message):
    with pytest.raises(UsageError) as said:
        named(algorithm(), config)
    assert message in str(said.value)


@pytest.mark.parametrize("given", [registry.Entry(SimpleNamespace(), env="four-rooms", summary=""), registry])
def test_what_is_no_name_of_an_algorithm(given):
    with pytest.raises(UsageError, match=r"by its name, or by the import path .* got a (Entry|module); .*register\("):
        jaxrl_hier.train(given)
