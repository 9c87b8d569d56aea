"""What each switch of MAML changes, and what it leaves as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.meta.estimators import PolicyBatch
from jaxrl_hier.meta.maml import Config, adaptation_step, make, setup_of
from jaxrl_hier.meta.outer import clipped_loss, credits, exploration_loss
from tests.close import assert_close
from tests.compiling import quick_jit

PROBE = {
    "meta_batch_size": 4,
    "episodes_per_task": 3,
    "horizon": 12,
    "hidden": (6,),
    "activation": "tanh",
    "outer": "sgd",
}


@pytest.fixture(scope="module")
def start(navigation):
    return ravel_pytree(make(Config(**PROBE), *navigation).init(jax.random.key(0)).params)[0]


@pytest.fixture(scope="module")
def after(navigation):
    """Settings -> the policy's parameters as one vector, metrics and state after an iteration. `numbers` are traced, so
    that there is one program for each `settings`."""
    programs, done = {}, {}

    def run(numbers=(("outer_learning_rate", 1.0),), **settings):
        name = repr(sorted(settings.items()))
        if name not in programs:

            def iteration(**numbers):
                algorithm = make(Config(**{**PROBE, **settings, **numbers}), *navigation)
                return algorithm.step(algorithm.init(jax.random.key(0)))

            programs[name] = quick_jit(iteration)
        if (name, numbers) not in done:
            state, metrics = programs[name](**dict(numbers))
            done[name, numbers] = ravel_pytree(state.params["params"])[0], metrics, state
        return done[name, numbers]

    return run


def differ(a, b):
    return float(jnp.abs(a - b).max())


@pytest.mark.parametrize(
    "switch",
    [
        {"first_order": True},
        {"estimator": "lvc"},
        {"estimator": "dice"},
        {"estimator": "loaded-dice"},
        {"credit_exploration": True},
        {"reptile": True},
    ],
    ids=lambda switch: "-".join(map(str, next(iter(switch.items())))),
)
def test_a_switch_of_the_outer_gradient_changes_that_alone(after, switch):
    plain, metrics, state = after()
    switched, other_metrics, other_state = after(**switch)
    assert differ(switched, plain) > 1e-4
    for quantity in ("return", "return_before"):  # the same trajectories, before and after adaptation
        assert_close(other_metrics[quantity], metrics[quantity])
    np.testing.assert_array_equal(jax.random.key_data(state.world), jax.random.key_data(other_state.world))


def test_estimators_differ_in_the_second_derivative_alone(after):
    first_order = after(first_order=True)[0]
    assert_close(after(first_order=True, estimator="dice")[0], first_order)
    assert differ(after(estimator="dice")[0], after(estimator="loaded-dice")[0]) > 1e-5


def test_reptile_is_a_step_towards_the_adapted_parameters(after, start):
    """θ − ε (θ − θ'), where θ − θ' is α times the sum of the policy gradients on both batches."""
    whole, half = (after((("outer_learning_rate", rate),), reptile=True)[0] - start for rate in (1.0, 0.5))
    assert_close(half, 0.5 * whole, 1e-4)
    on_first = after(inner_steps=0)[0] - start  # the same keys collect the same first batch
    on_second = after(first_order=True)[0] - start
    assert_close(whole, 0.5 * (on_first + on_second), 1e-4)


def test_head_only_adapts_less_and_learns_the_rest(after, navigation):
    _, metrics, _ = after()
    _, other_metrics, state = after(head_only=True)
    assert_close(other_metrics["return_before"], metrics["return_before"])
    assert differ(other_metrics["return"], metrics["return"]) > 1e-3
    before = make(Config(**PROBE), *navigation).init(jax.random.key(0)).params["params"]["MLP_0"]["Dense_0"]
    assert differ(state.params["params"]["MLP_0"]["Dense_0"]["kernel"], before["kernel"]) > 1e-5


def test_a_context_alone_adapts(navigation):
    """By hand: a step down the loss' gradient for the context; all other parameters stay."""
    config = Config(**PROBE, context_parameters=2)
    setup = setup_of(config, *navigation)
    params = setup.policy.init(jax.random.key(0), jnp.zeros(2))["params"]
    last = {**params, "context": jnp.array([0.3, -0.2])}
    rng = np.random.default_rng(0)
    obs, action, advantage = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((9, 2), (9, 2), (9,)))
    ones = jnp.ones(9) / 9
    none, zero = jnp.zeros((3, 3)), jnp.zeros(())
    batch = PolicyBatch(obs, action, (), jnp.zeros(9), advantage, ones, none, none, none, zero, zero, zero, obs[:1])
    after = adaptation_step(setup, {"params": last}, batch, jnp.int32(0))["params"]

    def loss(context):
        seen = jnp.concatenate([obs, jnp.tile(context, (9, 1))], axis=1)
        inside = {"params": {name: x for name, x in last["policy"].items()}}
        return -jnp.mean(setup.policy.policy.apply(inside, seen).log_prob(action) * advantage)

    assert_close(after["context"], last["context"] - config.inner_learning_rate * jax.grad(loss)(last["context"]))
    jax.tree.map(np.testing.assert_array_equal, after["policy"], last["policy"])


def test_learned_rates_start_at_alpha_and_learn_beside_the_policy(after):
    plain, metrics, _ = after()
    learned, other_metrics, state = after(learn_inner_rates=True)
    assert_close(learned, plain)  # the policy's first step is MAML's
    assert_close(other_metrics["return"], metrics["return"])
    rates = ravel_pytree(state.params["rates"])[0]
    assert rates.shape == learned.shape
    assert differ(rates, 0.5) > 1e-4
    head = after(outer="adam", learn_inner_rates=True, head_only=True, inner_steps=2)[2].params["rates"]["MLP_0"]
    assert head["Dense_0"]["kernel"] is None
    assert head["Dense_1"]["kernel"].shape == (6, 2)


def test_proximal_epochs(after):
    """The first step is Adam's; clip and KL penalty act from the second on."""

    def ppo(epochs, clip=0.3, kl_weight=0.0):
        numbers = (("outer_learning_rate", 0.01), ("clip", clip), ("kl_weight", kl_weight))
        return after(numbers, outer="ppo", outer_epochs=epochs)[0]

    adam = after((("outer_learning_rate", 0.01),), outer="adam")[0]
    assert_close(ppo(1), adam, 1e-4)
    assert_close(ppo(1, clip=0.01, kl_weight=10.0), adam, 1e-4)
    assert differ(ppo(3), adam) > 1e-3
    assert differ(ppo(3, kl_weight=10.0), ppo(3)) > 1e-3
    assert differ(ppo(3, clip=0.001), ppo(3)) > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"outer": "adam", "learn_inner_rates": True, "head_only": True, "inner_steps": 2},
        {"outer": "ppo", "outer_epochs": 3, "clip": 0.05, "kl_weight": 1.0},
    ],
)
def test_microbatches_change_nothing(after, settings):
    whole, metrics, state = after(**settings)
    parts, other_metrics, other_state = after(microbatch_size=2, **settings)
    # Adam's first step is the gradient's sign, even where the gradient is rounding noise around zero
    assert_close(parts, whole, 1e-5 if not settings else 1e-2)
    np.testing.assert_array_equal(jax.random.key_data(state.world), jax.random.key_data(other_state.world))
    for name, value in metrics.items():
        assert_close(other_metrics[name], value, 1e-4)


def test_memory_does_not_grow_with_tasks_in_microbatches(navigation):
    def temporary(meta_batch_size):
        algorithm = make(Config(**{**PROBE, "meta_batch_size": meta_batch_size}, microbatch_size=4), *navigation)
        state = jax.eval_shape(algorithm.init, jax.random.key(0))
        return quick_jit(algorithm.step).lower(state).compile().memory_analysis().temp_size_in_bytes

    assert temporary(400) < temporary(8) + 100 * 400  # a key or two for each task


# --- losses by hand --------------------------------------------------------------------------------------------------


def batch_of(probabilities, **fields):
    """One step in each of four environments: action 0 of two, which was drawn with `probabilities` [4]."""
    acted = Categorical(jnp.log(jnp.stack([probabilities, 1 - probabilities], axis=-1)))
    empty = dict.fromkeys(PolicyBatch._fields, None)
    action = jnp.zeros(4, jnp.int32)
    return PolicyBatch(**{**empty, "action": action, "acted": acted, "log_prob": acted.log_prob(action), **fields})


def test_clipped_loss():
    old, new = batch_of(jnp.full(4, 0.5)).acted, batch_of(jnp.array([0.9, 0.2, 0.9, 0.2])).acted
    batch = batch_of(jnp.full(4, 0.5), advantage=jnp.array([1.0, 1.0, -1.0, -1.0]), weight=jnp.ones(4))
    assert float(clipped_loss(old, new, batch, 0.2)) == pytest.approx(-(1.2 + 0.4 - 1.8 - 0.8), rel=1e-5)


def test_exploration_is_credited_with_the_return_after_adaptation():
    batch = batch_of(jnp.array([0.5, 0.2, 0.5, 0.2]), weight=jnp.full(4, 0.25))
    slope = jax.grad(lambda l: exploration_loss(Categorical(l), batch, jnp.array(2.0)))(batch.acted.logits)
    assert_close(slope[:, 0], -0.25 * 2.0 * (1 - jnp.array([0.5, 0.2, 0.5, 0.2])))
    returns = credits(batch._replace(episode_return=jnp.array([1.0, 2.0, 3.0, 4.0])))
    assert_close(jnp.array([returns.mean(), returns.std()]), [0.0, 1.0])
