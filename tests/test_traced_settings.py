"""Settings that may be traced are traced by every algorithm, so that one program serves many of their values."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import jaxrl_hier
from jaxrl_hier import registry
from jaxrl_hier.engine.chunk import init_seeds, make_chunk
from jaxrl_hier.engine.train import RunConfig
from jaxrl_hier.learning.off_policy import bellman_target
from jaxrl_hier.settings import traceable
from jaxrl_hier.testing import assert_close, assert_equal
from tests.compiling import quick_jit
from tests.sizes import SIZES, Settings

MEMBERS = 2


def numbers_of(name: str) -> Settings:
    """The settings of a small algorithm that may be traced, 0.5 for those that are None, unless it refuses that."""
    config = registry.module(name).Config(**registry.entry(name).config | SIZES[name])
    found: Settings = {}
    for setting in traceable(type(config)):
        value = getattr(config, setting)
        if value is None:
            try:
                jaxrl_hier.make(name, **SIZES[name], **{setting: 0.5})
            except jaxrl_hier.UsageError:  # as outer trpo does max_grad_norm
                continue
        found[setting] = 0.5 if value is None else value
    return found


def members_of(name: str) -> dict[str, jax.Array]:
    """Values of these settings, [MEMBERS]: those of the preset, and nine tenths of them, which lie in every range."""
    scales = [1 - 0.1 * i for i in range(MEMBERS)]
    return {k: jnp.array([type(v)(v * scale) for scale in scales]) for k, v in numbers_of(name).items()}


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_every_number_of_every_algorithm_may_be_traced(name):
    def one(settings):
        made = jaxrl_hier.make(name, **SIZES[name] | settings)
        state = made.init(jax.random.key(7))
        after, metrics = made.step(state)
        return state, after, metrics, made.evaluate(state, jax.random.key(8))

    members = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in members_of(name).items()}
    state, after, metrics, measured = jax.eval_shape(jax.vmap(one), members)
    form = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert form(after) == form(state)
    assert all(x.shape[0] == MEMBERS for x in jax.tree.leaves((after, metrics, measured)))


@pytest.mark.parametrize("name", ["q-learning", "her-dqn", "hiro"])
def test_a_traced_member_is_the_run_with_its_numbers(name):
    def trained(settings):
        made = jaxrl_hier.make(name, **SIZES[name] | settings)
        return make_chunk(made, 2)(init_seeds(made, RunConfig(seed=7)))[0]

    members = members_of(name)
    alone = {k: x[1].item() for k, x in members.items()}
    found = jax.tree.map(lambda x: x[1], quick_jit(jax.vmap(trained))(members))
    wanted = quick_jit(lambda: trained(alone))()
    if name == "q-learning":
        assert_equal(found, wanted)
    else:  # products of matrices round otherwise when they are batched
        assert_close({"params": found.params}, {"params": wanted.params}, 1e-4)


def test_the_type_of_a_setting_says_whether_it_may_be_traced():
    found = traceable(registry.module("her-dqn").Config)
    assert set(found) == {"max_grad_norm", "discount", "learning_rate", "target_rate", "her_goals", "epsilon"}


def test_values_are_bounded_by_rewards_where_a_traced_discount_is_one():
    config, ones = registry.module("dqn").Config(reward_range=(-1.0, 0.0)), jnp.ones(2)

    def target(discount):
        return bellman_target(dataclasses.replace(config, discount=discount), -ones, jnp.zeros(2, bool), -5 * ones)

    assert_equal(jax.vmap(target)(jnp.array([0.5, 1.0])), jnp.array([[-2.0, -2.0], [-6.0, -6.0]]))
