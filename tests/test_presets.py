"""Presets give way to what the user said, and messages are about that and about the environment."""

import dataclasses
import random
import re

import jax
import jax.numpy as jnp
import pytest
from gymnax.environments import spaces

import jaxrl_hier
from jaxrl_envs.tasks import single
from jaxrl_hier import api, building, registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.train import RunConfig
from jaxrl_hier.relations import at_least, how_many, largest_divisor, multiple, next_multiple, require, settled


class Case:
    """An algorithm's preset on its environment, and whatever else it takes to try settings on it."""

    def __init__(self, name):
        entry = registry.entry(name)
        self.env, self.tasks = building.environment(entry.env)
        self.config = registry.module(name).Config(**entry.config)
        self.run = RunConfig(**entry.run)
        self.settings = vars(self.config) | vars(self.run)
        self.facts = [self.tasks.time_limit(), how_many(self.tasks.train), how_many(self.tasks.test)]
        own = self.config.relations(self.env, self.tasks)
        self.relations = [*own, *self.run.relations(None, None), multiple(self.config.side_by_side, "devices")]
        fields = dataclasses.fields(self.config) + dataclasses.fields(self.run)
        self.numbers = [f.name for f in fields if str(f.type).replace("<class 'int'>", "int").startswith("int")]
        self.numbers += [f.name for f in fields if "Factor" in str(f.type)]

    def try_on(self, said):
        """The settings that come of it, which hold together; or the message, whose numbers are the user's own or follow
        from them and from the environment."""
        try:
            found = settled(self.settings | said, self.relations, said)
        except UsageError as error:
            message = str(error)
            assert "\n" not in message
            assert any(name in message for name in said)
            known = [*said.values(), *self.facts, 0, 1]
            known += [said.get("capacity", 0) // max(x or 1, 1) for x in known]
            known += [2 * said.get("goal_horizon", 1), said.get("warmup_steps", 0) // said.get("environments", 1)]
            needed = re.findall(r"use at least (\d+)", message)
            for number in map(int, re.findall(r"(?<![\w-])\d+", message)):
                assert number in known or str(number) in needed, (said, message)
            return message
        for relation in self.relations:
            assert relation.holds(_attributes(found))
        assert {name: found[name] for name in said} == said
        return found


def _attributes(settings):
    return type("Settings", (), settings)


@pytest.fixture(scope="module", params=sorted(registry.ALGORITHMS))
def case(request):
    return Case(request.param)


def test_a_preset_stays_as_it_is_where_nothing_is_said(case):
    assert settled(case.settings, case.relations, ()) == case.settings
    require(case.config, case.config.relations(case.env, case.tasks))


def test_one_number_is_enough(case):
    """Every whole number of every algorithm and of the run, alone."""
    for name in case.numbers:
        for value in (1, 2, 3, 7, 16, 60, 101, 1024, 5000, 1_000_003):
            found = case.try_on({name: value})
            if isinstance(found, str):  # the environment's episodes or tasks are against it
                known = ("capacity", "eval_tasks", "eval_goals") + ("rollout_length",) * (value == 1)
                assert name in known or "prior_steps" in case.numbers
            elif name == "iterations":
                assert found["log_every"] <= max(case.run.log_every, value)


def test_two_or_three_numbers_hold_together_or_are_named(case):
    draw = random.Random(0)
    for _ in range(150):
        names = draw.sample(case.numbers, draw.choice((2, 3)))
        case.try_on({name: draw.choice((1, 2, 4, 5, 10, 20, 64, 100, 120, 1000, 4096)) for name in names})


@pytest.mark.parametrize(
    ("name", "said", "others"),
    [
        ("sac", {"iterations": 1}, {"log_every": 1}),
        ("sac", {"log_every": 2}, {"iterations": 20_000, "evaluate_every": 5_000}),
        ("maml", {"log_every": 2}, {"iterations": 100, "checkpoint_every": 10, "evaluate_every": 26}),
        ("maml", {"microbatch_size": 6, "outer": "adam"}, {"meta_batch_size": 24}),
        ("sac", {"environments": 16}, {"capacity": 100_000, "warmup_steps": 1_008}),
        ("sac", {"batch_size": 200_000}, {"capacity": 200_000}),
        ("sac", {"capacity": 500}, {"batch_size": 256, "warmup_steps": 500}),
        ("sac", {"capacity": 200}, {"batch_size": 200, "warmup_steps": 200}),
        ("sac", {"rollout_length": 300}, {"capacity": 100_000}),
        ("q-learning", {"checkpoint_every": 7}, {"log_every": 7, "iterations": 200_004}),
        ("q-learning", {"checkpoint_every": 7, "iterations": 9}, {"log_every": 1}),
        ("rl2", {"environments": 48}, {"minibatch_size": 48}),
        ("rl2", {"minibatch_size": 100}, {"environments": 1_100}),
        ("rl2", {"minibatch_size": 100, "learner": "a2c"}, {"environments": 1_024}),
        ("uvfa", {"environments": 8}, {"goals_per_update": 8}),
        ("uvfa", {"goals_per_update": 100}, {"environments": 100}),
        ("fun", {"rollout_length": 4}, {"dilation": 4, "goal_horizon": 4}),
        ("fun", {"goal_horizon": 50, "dilation": 7}, {"rollout_length": 56}),
        ("hiro", {"warmup_steps": 0}, {"rollout_length": 20}),
        ("hiro", {"goal_horizon": 100}, {"warmup_steps": 9_500}),
        ("her-dqn", {"discount": 1.0}, {"reward_range": None}),
        ("pearl", {"train_tasks": 7}, {"tasks_per_iteration": 7, "meta_batch_size": 7, "capacity": 800_002}),
        ("td3", {"devices": 3}, {"environments": 3, "capacity": 100_002, "warmup_steps": 1_002}),
        ("pearl", {"devices": 7}, {"train_tasks": 77}),
        ("few-shot-regression", {"devices": 4}, {"meta_batch_size": 28}),
    ],
)
def test_what_gives_way_and_how_far(name, said, others):
    found = Case(name).try_on(said)
    assert {other: found[other] for other in others} == others


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("sac", {"iterations": 10, "log_every": 4}, r"iterations must be a multiple of log_every \(4\), got 10"),
        ("sac", {"capacity": 100, "batch_size": 200}, r"capacity must be at least batch_size \(200\), got 100"),
        (
            "sac",
            {"capacity": 1000, "environments": 300},
            r"capacity must be a multiple of environments \(300\), got 1000",
        ),
        ("sac", {"capacity": 1000, "devices": 100}, "^capacity = 1000, devices = 100: these settings conflict"),
        ("sac", {"warmup_steps": 1000, "capacity": 500}, r"warmup_steps must be at most capacity \(500\), got 1000"),
        ("sac", {"capacity": 100}, "capacity leaves 100 steps .* an episode has 200; use at least 200"),
        (
            "rl2",
            {"environments": 10, "minibatch_size": 4},
            r"environments \(10\) must be a multiple of minibatch_size \(4\)",
        ),
        (
            "fun",
            {"rollout_length": 10, "goal_horizon": 12},
            r"rollout_length must be at least goal_horizon \(12\), got 10",
        ),
        ("maml", {"eval_tasks": 41}, "eval_tasks: 41 test tasks were asked for and the task distribution holds 40"),
        ("td3", {"environments": 3, "devices": 2}, r"environments must be a multiple of devices \(2\), got 3"),
        ("pearl", {"devices": 100}, r"training tasks must be a multiple of devices \(100\), got 80"),
        ("pearl", {"prior_steps": 50}, "prior_steps must be whole episodes of 20 steps, got 50"),
    ],
)
def test_what_cannot_hold_together_is_named(name, said, message):
    assert re.search(message, Case(name).try_on(said))


class Bounds:
    """An environment that only says what it is like: `size` numbers in, one in [−1, 1] out, episodes of 30 steps."""

    name, size = "Bounds", 1

    @property
    def default_params(self):
        from gymnax.environments.environment import EnvParams

        return EnvParams(max_steps_in_episode=30)

    def action_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (1,))

    def observation_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (self.size,))

    def reset_env(self, key, params):
        return jnp.zeros(self.size), jnp.zeros((), jnp.int32)

    def step_env(self, key, state, action, params):
        return jnp.zeros(self.size), state + 1, jnp.zeros(()), jnp.zeros((), bool), {}

    def is_truncated(self, state, params):
        return state >= params.max_steps_in_episode


@pytest.mark.parametrize("name", ["pearl", "hiro", "sac"])
def test_presets_give_way_to_an_environment_of_the_user(name):
    env = Bounds()
    algorithm = jaxrl_hier.make(name, env=env, tasks=single(env.default_params))
    jax.eval_shape(lambda key: algorithm.step(algorithm.init(key)), jax.random.key(0))


def test_a_config_of_the_users_own_is_taken_as_it_is():
    config = registry.module("sac").Config(environments=16)
    with pytest.raises(UsageError, match=r"warmup_steps must be a multiple of environments \(16\), got 1000"):
        registry.module("sac").make(config, *building.environment("Pendulum-v1"))
    with pytest.raises(UsageError, match=r"warmup_steps must be a multiple of environments \(16\), got 1000"):
        api.train_configured("sac", config, RunConfig())
    with pytest.raises(UsageError, match=r"iterations must be a multiple of log_every \(3\), got 100"):
        api.train_configured("sac", registry.module("sac").Config(), RunConfig(log_every=3))


def test_settings_that_are_not_positive_are_refused_in_their_own_words():
    for name in registry.ALGORITHMS:
        for number in (
            "environments",
            "meta_batch_size",
            "log_every",
            "batch_size",
            "rollout_length",
            "horizon",
            "capacity",
        ):
            config = registry.module(name).Config
            if (hasattr(config, number) and getattr(config, number) is not None) or number == "log_every":
                for value in (0, -3):
                    with pytest.raises(UsageError, match=f"{number} must be positive, got {value}"):
                        api.train(name, **{number: value})


def test_relations():
    assert [next_multiple(x, 4) for x in (1, 4, 5, 8)] == [4, 4, 8, 8]
    assert [largest_divisor(60, most) for most in (1, 7, 29, 30, 59, 60, 100)] == [1, 6, 20, 30, 30, 60, 60]
    assert largest_divisor(1_000_003, 1000) == 1
    pair = [at_least("a", "b"), multiple("a", "c")]
    assert settled({"a": 1, "b": 10, "c": 7}, pair, ["b", "c"]) == {"a": 14, "b": 10, "c": 7}
    cap = at_least("c", "a")._replace(gives={"a": lambda s: s.c})
    with pytest.raises(UsageError, match=r"^b = 10, c = 5: these settings conflict"):
        settled({"a": 1, "b": 10, "c": 5, "d": 1}, [at_least("a", "b"), cap], ["b", "c", "d"])


@pytest.mark.parametrize(
    ("name", "said", "culprit"),
    [
        ("sarsa", {"environments": 2**31 - 1}, "environments"),
        ("fun", {"hidden": (1_000_000_007,), "rollout_length": 20}, "hidden"),
        ("sac", {"capacity": 2_000_000_000, "hidden": (8,), "environments": 8}, "capacity"),
        ("sac", {"batch_size": 2_000_000_000, "environments": 8}, "batch_size"),  # whose capacity gives way to it
        ("q-learning", {"seeds": 10**9}, "seeds"),
    ],
)
def test_a_state_beyond_the_machine_is_refused_before_it_is_made(name, said, culprit, tmp_path):
    with pytest.raises(UsageError, match=rf"takes \d+\.\d GiB .* GiB free; {culprit} makes it large"):
        api.train(name, out=tmp_path / "run", quiet=True, **said)
    assert not any(tmp_path.iterdir())


def test_no_setting_is_larger_than_shapes_can_be():
    with pytest.raises(
        UsageError, match="capacity gives each environment 400000000 steps; 357913941 can be counted at most"
    ):
        api.train("sac", capacity=400_000_000)
    with pytest.raises(UsageError, match="environments must be at most 2147483647"):
        api.train("sarsa", environments=2**31)


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS))
def test_layers_have_positive_sizes(name):
    config = registry.module(name).Config
    for layers in ("hidden", "encoder", "encoder_hidden", "channels"):
        if hasattr(config, layers):
            for sizes in ((0,), (8, -5)):
                with pytest.raises(UsageError, match="positive sizes"):
                    jaxrl_hier.make(name, **{layers: sizes})
