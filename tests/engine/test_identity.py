"""What a run is: each way in which an environment or its tasks can differ is seen and named."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property, partial
from types import SimpleNamespace

import gymnasium
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
    INSIDE,
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


class Pay:
    """An object that holds itself, and draws numbers."""

    def __init__(self, gain):
        self.gain, self.itself, self.rng = gain, self, np.random.default_rng()

    def pay(self, x):
        return self.gain * x


class Gain(Enum):
    LOW, HIGH = 1.0, 10.0


@dataclass(slots=True)
class Slots:
    gain: float


def scaled(x, scale):
    return scale * x


def gained(gain):
    return lambda x: gain * x


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


@pytest.mark.parametrize(
    ("hold", "named"),
    [
        (lambda x: partial(scaled, scale=x), "environment.rule.keywords.scale was 1.0 and is now 10.0"),
        (lambda x: partial(scaled, x), "environment.rule.arguments.0 was"),
        (gained, "environment.rule.gain was 1.0 and is now 10.0"),
        (lambda x: jax.jit(gained(x)), "environment.rule.function.gain was"),
        (lambda x: partial(gained(x), 1), "environment.rule.function.gain was"),
        (lambda x: lambda y, by=x: by * y, "environment.rule.defaults.0 was"),
        (lambda x: Pay(x).pay, "environment.rule.object.gain was"),
        (Pay, "environment.rule.gain was"),
        (Slots, "environment.rule.gain was"),
        (lambda x: SimpleNamespace(gain=x), "environment.rule.gain was"),
        (lambda x: {"a": {"b": {"c": {"d": x}}}}, "environment.rule.a.b.c.d was"),
        (lambda x: {"a": [np.full(3, x)]}, "inside environment: rule.a.0 was 1 and is now 10 at [0]"),
        (lambda x: SimpleNamespace(weights=jnp.full(3, x)), "inside environment: rule.weights was 1 and is now 10"),
        (lambda x: CorridorParams(jnp.full(2, x)), "inside environment: rule.max_steps_in_episode was 1"),
        (lambda x: {"a", f"b{x}"}, "environment.rule.1 was 'b1.0'"),
        (lambda x: (lambda y: y) if x == 1 else (lambda y: -y), "environment.rule.<code> was"),
        (lambda x: (lambda y: 1 * y) if x == 1 else (lambda y: 2 * y), "environment.rule.<code> was"),
        (Gain, "environment.rule.value was"),
    ],
)
def test_what_an_attribute_holds_is_told_apart(hold, named):
    assert differences(told(Windy(rule=hold(1.0))), told(Windy(rule=hold(1.0)))) == []
    found = differences(told(Windy(rule=hold(1.0))), told(Windy(rule=hold(10.0))))
    assert any(text.startswith(named) for text in found), found


def test_parts_are_compared_up_to_rounding_and_not_with_a_run_that_kept_none():
    holds = lambda x: told(Windy(rule=SimpleNamespace(gain=x, weights=np.full(2, x))))
    assert differences(holds(1.0), holds(1 + 1e-6)) == []
    kept = holds(1.0)
    old = kept._replace(
        facts={name: x for name, x in kept.facts.items() if name != INSIDE},
        arrays={name: x for name, x in kept.arrays.items() if not name.startswith(INSIDE)},
    )
    assert differences(old, holds(2.0)) == []
    assert differences(old, told(Windy(length=7, rule=SimpleNamespace())))[0].startswith("environment.length was 6")


def test_code_is_compared_where_one_version_of_python_compiled_it():
    now = told(Windy(rule=lambda y: -y))
    assert now.facts[INSIDE]["environment.rule.<code>"].startswith(
        f"{sys.version_info.major}.{sys.version_info.minor} "
    )
    for kept in ("2.7 0badf00d", None):  # of another version, and of a run from before it was kept
        inside = {**now.facts[INSIDE], "environment.rule.<code>": kept}
        assert differences(now._replace(facts=now.facts | {INSIDE: inside}), now) == []


def test_an_attribute_called_code_is_no_code():
    for first, second in ((SimpleNamespace(code="a b"), SimpleNamespace(code="b a")), ({"code": 1}, {"code": 2})):
        assert differences(told(Windy(rule=first)), told(Windy(rule=second)))[0].startswith("environment.rule.code was")


class Paying(gymnasium.Env):
    """Holds a setting, what it draws and when it was made."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Discrete(2)

    def __init__(self, gain):
        self.gain, self.table = gain, np.full(3, gain)
        self.made, self.drawn = time.time(), np.random.default_rng().normal(size=3)
        self.np_random.normal()


def test_wrappers_and_arguments_of_an_environment_of_gymnasium_are_told_apart():
    from gymnasium.wrappers import TimeLimit, TransformReward

    from jaxrl_hier.host import HostEnv

    make = lambda gain=1.0, limit=5: TimeLimit(Paying(gain), limit)
    of = lambda make: identity_of("dqn", {}, None, HostEnv(make), TASKS)
    first = of(lambda: make())
    script = SimpleNamespace(gain=1.0, out="runs/b")
    assert differences(first, of(lambda: make(script.gain))) == []  # whatever else the factory knows
    found = differences(first, of(lambda: make(10.0)))
    assert "environment.layer 1.gain was 1.0 and is now 10.0" in found
    assert any(text.startswith("inside environment: layer 1.table was 1 and is now 10") for text in found)
    assert "environment.layer 0._max_episode_steps was 5 and is now 6" in differences(first, of(lambda: make(limit=6)))
    found = differences(first, of(lambda: TransformReward(make(), lambda reward: 10 * reward)))
    assert any(text.startswith("environment.layer 0.class was 'gymnasium.wrappers.common.TimeLimit'") for text in found)


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
    found = differences(cart(), cart(sutton_barto_reward=True))
    assert found[0] == "environment._settings.sutton_barto_reward was None and is now True"
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


PARTS = """
import json
from jaxrl_envs import registry
from jaxrl_hier.building import environment
from jaxrl_hier.engine.identity import parts_inside

def told(env):
    facts, arrays = parts_inside(env)
    return facts | {name: x.tolist() for name, x in arrays.items()}

if __name__ == "__main__":
    print(json.dumps({name: told(environment(name)[0]) for name in [*registry.names(), "gymnasium:CartPole-v1"]}))
"""


def test_what_registered_environments_hold_is_the_same_in_every_process():
    """Whatever the order of sets, and where objects lie in memory."""
    of = lambda seed: (
        subprocess.run(
            [sys.executable, "-c", PARTS],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
    )
    first, second = (json.loads(of(seed).splitlines()[-1]) for seed in "12")
    assert first == second
    assert first["gymnasium:CartPole-v1"]["environment.layer 0._max_episode_steps"] == 500
