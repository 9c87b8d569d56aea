"""Optimisers: rates and bounds by hand, the same settings in every learner, and the names that they had."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl_hier
from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.flat import dqn, td3
from jaxrl_hier.learning.optimization import OptimizerConfig, linear_over, optimizer_of
from jaxrl_hier.meta import few_shot_regression, rl2
from jaxrl_hier.run import _algorithm_of
from jaxrl_hier.settings import current
from tests.compiling import quick_jit
from tests.sizes import SIZES

LINEAR = OptimizerConfig(learning_rate_schedule="linear", learning_rate_iterations=4)
COSINE = dataclasses.replace(LINEAR, learning_rate_schedule="cosine")
FALLS = {LINEAR: lambda x: 1 - x, COSINE: lambda x: (1 + math.cos(math.pi * x)) / 2}


def taken(optimizer, gradients):
    """The steps of an optimiser."""
    state, steps = optimizer.init(gradients[0]), []
    for gradient in gradients:
        step, state = optimizer.update(gradient, state)
        steps.append(step)
    return steps


@pytest.mark.parametrize("config", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_rates_at_each_gradient_step(config):
    """Four iterations of three gradient steps, of which a delayed optimiser takes every second."""
    rate = lambda step: 0.1 * FALLS[config](min(step / 12, 1))
    ones = [jnp.ones(())] * 14
    every_step = taken(optimizer_of(config, 0.1, rule=optax.sgd, steps=3), ones)
    np.testing.assert_allclose(every_step, [-rate(i) for i in range(14)], rtol=1e-5, atol=1e-8)
    delayed = taken(optimizer_of(config, 0.1, rule=optax.sgd, steps=3, every=2), ones[:7])
    np.testing.assert_allclose(delayed, [-rate(i) for i in range(1, 14, 2)], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("count", [6, 2**30, 2**31 - 1])  # of a delayed optimiser's steps, as far as optax counts
def test_rates_stay_zero_in_a_long_run(count):
    rate = optimizer_of(LINEAR, 0.1, rule=lambda rate: rate, steps=3, every=2)
    assert rate(jnp.int32(5)) > 0
    assert rate(jnp.int32(count)) == 0


def test_constant_rates_need_no_state():
    default = optimizer_of(OptimizerConfig(), 0.1)
    assert jax.tree.structure(default.init(jnp.zeros(()))) == jax.tree.structure(optax.adam(0.1).init(jnp.zeros(())))


def test_the_norm_of_a_gradient_is_bounded():
    """That of all arrays together, exactly; a shorter gradient stays."""
    optimizer = optimizer_of(OptimizerConfig(max_grad_norm=2.5), 1.0, rule=optax.sgd)
    long, short = (
        {"a": jnp.array([3.0]), "b": jnp.array([0.0, -4.0])},
        {"a": jnp.array([1.5]), "b": jnp.array([2.0, 0])},
    )
    steps = taken(optimizer, [long, short])
    np.testing.assert_array_equal(steps[0]["a"], [-1.5])
    np.testing.assert_array_equal(steps[0]["b"], [0.0, 2.0])
    jax.tree.map(np.testing.assert_array_equal, steps[1], jax.tree.map(jnp.negative, short))


COUNTED = {  # gradient steps in an iteration, and which of them each optimiser takes
    "dqn": [(2, 1)],
    "sac": [(2, 1)],
    "td3": [(2, 2), (2, 1)],  # the actor, every second; the critics
    "ddpg": [(2, 1), (2, 1)],
    "hiro": [(6, 2), (6, 1), (2, 2), (2, 1)],  # three of the worker for one of the manager
    "pearl": [(2, 1)],
    "promp": [(5, 1)],
    "reptile": [(1, 1)],
    "fun": [(1, 1)],
    "option-critic": [(1, 1)],
    "uvfa": [(1, 1)],
    "few-shot-regression": [(1, 1)],
}


@pytest.mark.parametrize("name", COUNTED)
def test_gradient_steps_of_an_iteration(name, monkeypatch):
    seen = []

    def spy(config, rate, *, rule=optax.adam, steps=1, every=1):
        seen.append((steps, every))
        return optimizer_of(config, rate, rule=rule, steps=steps, every=every)

    module = td3 if name == "hiro" else registry.module(name)
    monkeypatch.setattr(module, "optimizer_of", spy)
    more = {"worker_update_ratio": 3} if name == "hiro" else {"outer_epochs": 5} if name == "promp" else {}
    jaxrl_hier.make(name, **SIZES[name], **more)
    assert seen == COUNTED[name]


MANY = [  # learners that take several gradient steps in an iteration
    ("td3", {"updates": 3}, lambda params: (params.actor, params.critics)),
    ("ppo", {}, lambda params: params),
    ("rl2", {"environments": 16, "minibatch_size": 8}, lambda params: params),
    ("varibad", {}, lambda params: params),
]


@pytest.mark.parametrize(("name", "settings", "stepped"), MANY, ids=[name for name, *_ in MANY])
def test_rates_reach_zero_after_so_many_iterations_and_no_sooner(name, settings, stepped):
    """Whatever an iteration is: in the second of two everything still moves, in the third nothing does."""
    algorithm = jaxrl_hier.make(name, **(SIZES[name] | settings | linear_over(2)))

    @quick_jit
    def run(key):
        def step(state, _):
            state, _ = algorithm.step(state)
            return state, stepped(state.params)

        return jax.lax.scan(step, algorithm.init(key), length=4)[1]

    for leaf in jax.tree.leaves(run(jax.random.key(0))):
        assert not np.array_equal(leaf[0], leaf[1])
        np.testing.assert_array_equal(leaf[2], leaf[1])
        np.testing.assert_array_equal(leaf[3], leaf[1])


# Which learner has which


SHARED = ("learning_rate_schedule", "learning_rate_iterations", "max_grad_norm")
NONE = ()
HAS = {  # a learner without one of these has its reason
    "flat.dqn": (*SHARED, "normalize_observations", "network", "channels"),
    "flat.td3": (*SHARED, "normalize_observations"),  # its critics see actions beside the inputs
    "flat.policy_gradient": (*SHARED, "normalize_observations", "network", "channels"),
    "flat.sac": (*SHARED, "normalize_observations"),
    "hierarchical.option_critic": (*SHARED, "normalize_observations", "network", "channels"),
    "hierarchical.option_ppo": (*SHARED, "normalize_observations", "network", "channels"),
    "hierarchical.fun": (
        *SHARED,
        "normalize_observations",
        "channels",
    ),  # its perception is a CNN wherever it sees pictures
    "hierarchical.hiro": (*SHARED, "normalize_observations"),
    "goals.uvfa": SHARED,  # states and goals are scaled by their bounds
    "meta.rl2": (*SHARED, "normalize_observations", "network", "channels"),
    "combined.rl2_options": (*SHARED, "normalize_observations", "network", "channels"),
    "combined.maml_options": SHARED,  # as MAML
    "combined.mlsh": (*SHARED, "network", "channels"),  # masters would learn from what moves under them
    "meta.maml": SHARED,  # statistics that move would be a part of what adapts
    "meta.few_shot_regression": SHARED,
    "meta.varibad": SHARED,  # the decoder predicts what the encoder sees
    "meta.pearl": (*SHARED, "normalize_observations"),
    "flat.q_learning": NONE,  # tables
    "flat.sarsa": NONE,
    "hierarchical.smdp_q": NONE,
    "hierarchical.intra_option_q": NONE,
    "hierarchical.option_critic_tabular": NONE,
    "hierarchical.maxq": NONE,
}


OWN = {  # algorithms of this package, and where they are; tests may have registered others
    name: entry.module.removeprefix("jaxrl_hier.")
    for name, entry in registry.ALGORITHMS.items()
    if str(entry.module).startswith("jaxrl_hier.")
}


def test_settings_have_one_name_in_every_learner():
    assert set(HAS) == set(OWN.values())
    named = {name for names in HAS.values() for name in names}
    for name, module in OWN.items():
        fields = {field.name for field in dataclasses.fields(registry.module(name).Config)}
        assert fields & named == {*HAS[module]}
        others = fields - named - {"entropy_decay_iterations"}
        assert not [f for f in others if any(word in f for word in ("anneal", "schedule", "grad_norm", "decay_iter"))]


CONSTANT = {"learning_rate_schedule": "constant", "learning_rate_iterations": 0}


@pytest.mark.parametrize("name", [name for name, module in OWN.items() if HAS.get(module)])
def test_bad_settings_are_refused_by_every_learner(name):
    for settings, message in (
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive, got 0.0"),
        ({"learning_rate_schedule": "exponential"}, "learning_rate_schedule must be one of constant, linear, cosine"),
        ({"learning_rate_schedule": "cosine"}, "learning_rate_schedule cosine needs learning_rate_iterations"),
        ({"learning_rate_iterations": 5}, "learning_rate_iterations is for .* linear or cosine, got 5 for constant"),
        ({"learning_rate_iterations": -1}, "learning_rate_iterations must be at least 0, got -1"),
    ):
        with pytest.raises(UsageError, match=message):
            jaxrl_hier.make(name, **CONSTANT | settings)


def test_what_has_no_gradient_step_takes_none_of_it():
    with pytest.raises(UsageError, match="max_grad_norm are for outer adam, ppo or sgd, got trpo"):
        jaxrl_hier.make("maml", max_grad_norm=1.0)
    with pytest.raises(
        UsageError, match="learning_rate_iterations must be at most 1073741823 with 2 updates per iteration"
    ):
        jaxrl_hier.make("dqn", **linear_over(2**31 - 1))


# Names of earlier versions


@pytest.mark.parametrize(
    ("config", "kept", "today"),
    [
        (rl2.Config, {"learning_rate_anneal": 20, "size": 8}, linear_over(20) | {"memory_size": 8}),
        (rl2.Config, {"learning_rate_anneal": 0}, linear_over(0)),
        (dqn.Config, {"learning_rate_anneal": 80, "updates": 2}, linear_over(40) | {"updates": 2}),
        (dqn.Config, {"batch": 8, "her": "none"}, {"batch_size": 8, "her": "none"}),
        (td3.Config, {"batch": 8, "smoothing": 0.1}, {"batch_size": 8, "target_noise": 0.1}),
        (dqn.Config, {"learning_rate_anneal": 0, "updates": 2}, linear_over(0) | {"updates": 2}),
        (few_shot_regression.Config, {"decay_iterations": 9}, linear_over(9)),
        (few_shot_regression.Config, {"decay_iterations": None}, linear_over(None)),
    ],
)
def test_settings_that_were_renamed(config, kept, today):
    assert current(config, kept) == today
    assert current(config, today) == today
    config(**today)


def test_a_run_of_an_earlier_version_loads():
    config = dataclasses.asdict(rl2.Config(memory_size=8))
    for new in ("learning_rate_schedule", "learning_rate_iterations", "network", "channels", "normalize_observations"):
        del config[new]
    kept = {"algorithm": "rl2", "config": config | {"learning_rate_anneal": 20}, "env": "bandit-n10-k5"}
    assert _algorithm_of(kept) == ("rl2", rl2.Config(memory_size=8, **linear_over(20)))
