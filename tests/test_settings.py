"""Settings: what each field of each Config takes, and what becomes of it."""

import dataclasses
import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.train import RunConfig
from jaxrl_hier.hierarchical import option_models, subgoals
from jaxrl_hier.settings import BaseConfig, converted, traceable

MODULES = {registry.module(name).__name__: registry.module(name).Config for name in registry.ALGORITHMS}
CONFIGS = {**MODULES, "option_models": option_models.Config, "subgoals": subgoals.Config, "run": RunConfig}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=[n.removeprefix("jaxrl_hier.") for n in CONFIGS])


FACTORS = ("cg_iterations", "line_search_steps", "her_goals")  # whole numbers that are only multiplied


def as_json(config):
    return json.loads(json.dumps(dataclasses.asdict(config)))


def refused(config, name, value):
    """The message, which is one line and names the field."""
    with pytest.raises(UsageError) as error:
        config(**{name: value})
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(name)
    assert len(message) < 200
    return message


def example(config, name):
    """A value of the field's kind, other than None."""
    value = getattr(config(), name)
    if value is not None:
        return value
    kind = str(config.__dataclass_fields__[name].type)
    return (0.5, 0.75) if "tuple" in kind else 0.5 if "float" in kind else 3


def fields_of(config):
    return [(field.name, example(config, field.name)) for field in dataclasses.fields(config)]


def in_other_words(value):
    """The same value, as NumPy, JAX and others say it."""
    if isinstance(value, bool):
        return [np.bool_(value), np.array(value), jnp.array(value)]
    if isinstance(value, int):
        return [np.int64(value), np.uint32(value), np.array(value), jnp.int32(value), np.float64(value), float(value)]
    if isinstance(value, float):
        return [np.float64(value), np.array(value), np.float32(value), jnp.float32(value), Fraction(value)]
    if isinstance(value, str):
        return [np.str_(value)]
    return [list(value), np.array(value), jnp.array(value), [np.array(x) for x in value]]


def wrong_values(value, optional):
    """What is not of the kind of `value`."""
    wrong = [object(), {}, {"a": 1}, int, lambda: 3, 1j, jax.random.key(0), np.zeros((2, 2)), b"3"]
    wrong += [] if optional else [None]
    if isinstance(value, bool):
        return [*wrong, 0, 1, "yes", 0.0, [True]]
    if isinstance(value, str):
        return [*wrong, 3, 0.5, ["a"]]
    infinite = [float("inf"), -float("inf"), float("nan"), np.float32("inf"), jnp.nan, 1e300, 10**400]
    if isinstance(value, int):
        return [*wrong, *infinite, 2.5, np.float32(0.5), True, np.True_, "3", [3], np.zeros(1), Decimal("1.5"), 2**64]
    if isinstance(value, float):
        return [*wrong, *infinite, "0.5", True, [0.5], np.zeros(2)]
    wrong += [3, "64", {1, 2}, np.array(3), ("a", "b"), (None, None), ((1,), (2,)), *[(x, x) for x in infinite]]
    whole = isinstance((*value, 1)[0], int)
    return wrong + ([(64.5,), (True, True), (np.float32(0.5), 1)] if whole else [(1.0,), (1, 2, 3)])


@each_config
def test_defaults_stay_as_they_are(config):
    assert issubclass(config, BaseConfig)
    assert {field.name: field.default for field in dataclasses.fields(config)} == dataclasses.asdict(config())
    assert as_json(config(**as_json(config()))) == as_json(config())


@each_config
def test_every_field_takes_the_numbers_of_numpy_and_jax(config):
    for name, value in fields_of(config):
        for other in in_other_words(value):
            made = config(**{name: other})
            found = getattr(made, name)
            assert repr(found) == repr(value)  # and of the same types, items too
            assert as_json(made)[name] == (list(value) if isinstance(value, tuple) else value)
            assert hash(made) == hash(config(**{name: value}))


@each_config
def test_no_field_takes_what_is_not_of_its_kind(config):
    for name, value in fields_of(config):
        for wrong in wrong_values(value, type(None) in get_args(config.__dataclass_fields__[name].type)):
            refused(config, name, wrong)


@each_config
def test_traced_numbers_pass_where_they_are_only_multiplied(config):
    for name, value in fields_of(config):
        multiplied = name in traceable(config)
        assert multiplied == (isinstance(value, float) or name in FACTORS)

        def traced(x, name=name, value=value, multiplied=multiplied):
            if multiplied:
                assert getattr(config(**{name: x}), name) is x
                refused(config, name, jnp.stack([x, x]))
            else:
                message = refused(config, name, x)
                assert isinstance(value, (str, tuple)) or "cannot be traced" in message
            return x

        jax.eval_shape(traced, jnp.asarray(value if isinstance(value, (bool, int, float)) else 3))


def test_float32_numbers_are_the_shortest_decimals_that_they_can_be():
    assert converted("x", np.float32(1e-3), float) == 1e-3
    assert converted("x", jnp.float32(0.1), float) == 0.1
    assert np.float32(converted("x", np.float32(1 / 3), float)) == np.float32(1 / 3)
    assert converted("x", jnp.bfloat16(0.5), float) == 0.5


@each_config
def test_no_rate_is_absurd(config):
    for name, _ in fields_of(config):
        if name.endswith(("_lr", "learning_rate")):
            for rate in (1e30, np.float32(1e10), 10**12):
                assert "must be at most 1e+09" in refused(config, name, rate)
            assert getattr(config(**{name: 3.0}), name) == 3.0


@pytest.mark.parametrize("kind", [dict, list[float], Any, np.ndarray, int | float, Callable[[], None]])
def test_a_setting_of_another_kind_is_named(kind):
    config = dataclasses.make_dataclass("Config", [("weights", kind, None)], bases=(BaseConfig,), frozen=True)
    with pytest.raises(UsageError, match=r"weights is declared as .*: a setting is a bool, int, float"):
        config(weights=0.5)


def test_none_may_come_first():
    config = dataclasses.make_dataclass("Config", [("rate", None | float, None)], bases=(BaseConfig,), frozen=True)
    assert (config().rate, config(rate=1).rate) == (None, 1.0)


def test_long_values_are_cut_in_messages():
    for value in ("x" * 1000, [1] * 1000, np.zeros(1000), 10**5000):
        assert len(refused(RunConfig, "iterations", value)) < 150
