"""What a run is: each way in which an environment or its tasks can differ is seen and named."""

from dataclasses import replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces
from gymnax.wrappers.purerl import FlattenObservationWrapper

import jaxrl_envs
from jaxrl_envs.tasks import Tasks, from_batch, single
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.identity import (
    ARRAYS,
    Identity,
    differences,
    identity_of,
    kept_of,
    load,
    save,
    space_text,
    summary,
)
from tests.probes import Corridor, CorridorParams, Lottery, lotteries


class Windy(Corridor):
    """A corridor with arguments of many kinds."""

    def __init__(self, length=6, name="corridor", wind=(0.1, 0.2), field=None, inner=None, rule=np.clip):
        self.length, self.name, self.wind, self.rule = length, name, wind, rule
        self.field = np.zeros(3) if field is None else field
        self._inner = inner

    @cached_property
    def table(self):
        return np.ones(4)


TASKS = single(CorridorParams())


def told(env, tasks=TASKS, **facts):
    return identity_of("q-learning", {"step_size": 0.1} | facts, None, env, tasks)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Windy(length=7), "environment.length was 6 and is now 7"),
        (Windy(name="hall"), "environment.name was 'corridor' and is now 'hall'"),
        (Windy(wind=(0.1, 0.3)), "environment.wind was [0.1, 0.2] and is now [0.1, 0.3]"),
        (Windy(field=np.array([0, 1.0, 0])), "environment: field was 0 and is now 1 at [1]"),
        (Windy(field=np.zeros(4)), "environment: field was float64[3] and is now float64[4]"),
        (Windy(rule=np.round), "environment.rule was"),
        (Windy(inner=Corridor()), "environment._inner"),
        (Corridor(), "environment.class was"),
    ],
)
def test_each_argument_of_an_environment_is_told_apart(other, named):
    found = differences(told(Windy()), told(other))
    assert any(text.startswith(named) for text in found), found


def test_an_equal_environment_is_no_other_whatever_it_has_computed_since():
    env = Windy()
    before = told(env)
    assert env.table.shape == (4,)
    assert differences(before, told(env)) == []
    assert differences(before, told(Windy())) == []


def test_numbers_up_to_roundings_and_environments_that_hold_each_other():
    """A step size of 0.1 is no 0.1001, but what another processor made of it; and nobody walks in circles."""
    nan, close, other = Windy(length=float("nan")), Windy(length=0.1 + 1e-9), Windy(length=0.11)
    assert differences(told(nan), told(nan)) == []
    assert differences(told(Windy(length=0.1)), told(close)) == []
    assert differences(told(close), told(other)) != []
    outer = Windy(inner=Windy(length=7))
    outer._inner._inner = outer
    assert differences(told(outer), told(outer)) == []
    tiny = [told(Windy(field=np.array([x]))) for x in (1e-8, 2e-8)]
    assert differences(*tiny) == ["environment: field was 1e-08 and is now 2e-08 at [0]"]
    assert differences(told(Windy(), step_size=1e-8), told(Windy(), step_size=2e-8)) != []
    assert told(outer).facts["environment"]["_inner"]["length"] == 7


def test_arguments_of_a_wrapped_environment_are_told_apart():
    wrapped = lambda box: FlattenObservationWrapper(Lottery(box=box))
    assert differences(told(wrapped(True)), told(wrapped(True))) == []
    found = differences(told(wrapped(True)), told(wrapped(False)))
    assert any("box was True and is now False" in text for text in found), found


def test_environments_of_gymnasium_are_told_apart():
    from jaxrl_hier.host import HostEnv

    cart = lambda **settings: identity_of("dqn", {}, None, HostEnv("CartPole-v1", **settings), TASKS)
    assert differences(cart(), cart()) == []
    assert differences(cart(), cart(sutton_barto_reward=True)) == [
        "environment._settings.sutton_barto_reward was None and is now True"
    ]
    pendulum = identity_of("dqn", {}, None, HostEnv("Pendulum-v1"), TASKS)
    assert any(text.startswith("environment._class was") for text in differences(cart(), pendulum))


def batch(*limits):
    return CorridorParams(max_steps_in_episode=jnp.array(limits))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (single(CorridorParams(30)), single(CorridorParams(31)), "draws of sample: max_steps_in_episode was 30"),
        (Tasks(TASKS.sample, "never"), Tasks(TASKS.sample, "episode"), "tasks.resample was 'never' and is now"),
        (
            Tasks(TASKS.sample, test=batch(5, 6)),
            Tasks(TASKS.sample, test=batch(5, 7)),
            "test tasks: max_steps_in_episode was 6 and is now 7 at [1]",
        ),
        (Tasks(TASKS.sample, test=batch(5)), Tasks(TASKS.sample, test=batch(5, 7)), "tasks.test was 1 and is now 2"),
        (
            Tasks(TASKS.sample, train=batch(5, 6)),
            Tasks(TASKS.sample, train=batch(5, 7)),
            "training tasks: max_steps_in_episode was 6",
        ),
        (Tasks(TASKS.sample), Tasks(TASKS.sample, train=batch(5)), "tasks.train was None and is now 1"),
        (from_batch(batch(5, 6)), from_batch(batch(6, 5)), "training tasks: max_steps_in_episode was 5"),
    ],
)
def test_each_way_in_which_tasks_differ_is_named(old, new, named):
    found = differences(told(Corridor(), old), told(Corridor(), new))
    assert any(text.startswith(named) for text in found), found
    assert differences(told(Corridor(), old), told(Corridor(), old)) == []


def test_draws_that_round_differently_are_the_same():
    """Another processor rounds differently: 1e-6 of relative error is no other task, 1e-2 is."""
    scaled = lambda by: replace_number(lotteries(), by)
    same, other = (differences(told(Lottery(), lotteries()), told(Lottery(), scaled(by))) for by in (1 + 1e-6, 1.01))
    assert same == []
    assert [text for text in other if text.startswith("draws of sample: number was")]


def replace_number(tasks, factor):
    def sample(key):
        task = tasks.sample(key)
        return replace(task, number=task.number * factor)

    return Tasks(sample, tasks.resample)


def test_settings_and_names_are_compared():
    old = identity_of("q-learning", {"step_size": 0.1}, "a", Corridor(), TASKS)
    assert differences(old, identity_of("q-learning", {"step_size": 0.2}, "a", Corridor(), TASKS)) == [
        "config.step_size was 0.1 and is now 0.2"
    ]
    assert differences(old, identity_of("q-learning", {"step_size": 0.1}, None, Corridor(), TASKS)) == []
    found = differences(old, identity_of("q-learning", {"step_size": 0.1}, "b", Windy(), TASKS))
    assert found[0] == "env was 'a' and is now 'b'"


def test_a_run_of_an_older_version_is_compared_as_far_as_it_tells():
    old = Identity({"algorithm": "q-learning", "env": "corridor", "config": {"step_size": 0.1}})
    now = identity_of("q-learning", {"step_size": 0.1}, "corridor", Corridor(), TASKS)
    assert differences(old, now) == []
    assert differences(old, now._replace(facts=now.facts | {"env": "hall"})) == ["env was 'corridor' and is now 'hall'"]


def test_arrays_come_back_as_they_were_kept(tmp_path):
    identity = told(Windy(), Tasks(TASKS.sample, test=batch(5, 6)))
    save(tmp_path, identity.arrays)
    assert [path.name for path in tmp_path.iterdir()] == [ARRAYS]
    assert differences(load(tmp_path, identity.facts), identity) == []
    (tmp_path / ARRAYS).write_bytes((tmp_path / ARRAYS).read_bytes()[:50])
    with pytest.raises(UsageError, match="is damaged"):
        load(tmp_path, identity.facts)


def test_keys_and_very_large_arrays_are_kept_as_numbers(monkeypatch):
    assert kept_of(jax.random.key(3)).tolist() == [0, 3]
    monkeypatch.setattr("jaxrl_hier.engine.identity.LARGEST", 80)
    assert kept_of(np.zeros((10, 5))).shape == (2, 5)


def test_spaces_and_differences_in_words():
    class Many(environment.Environment):
        pass

    box = spaces.Box(-1.0, np.array([1.0, 2.0]), (2,), jnp.float32)
    assert space_text(box) == "Box[2] float32 in [-1, 2]"
    assert space_text(spaces.Discrete(4)) == "Discrete(4)"
    assert (
        space_text(spaces.Dict({"a": spaces.Discrete(2), "b": box})) == "a: Discrete(2), b: Box[2] float32 in [-1, 2]"
    )
    assert summary(["a", "b"]) == "a; b"
    assert summary(list("abcde")) == "a; b; c; and 2 more"


@pytest.mark.parametrize("name", ["navigation2d", "four-rooms-goals", "taxi", "CartPole-v1", "bandit-n10-k5"])
def test_a_named_environment_is_itself_when_it_is_built_again(name):
    first, second = (identity_of("any", {}, name, *jaxrl_envs.make(name)) for _ in range(2))
    assert differences(first, second) == []
    assert first.arrays
