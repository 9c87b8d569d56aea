"""Replay buffers in tests: what they hold, and ones that hold a single step."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxrl_hier.engine.replay import Places, Ring, read
from jaxrl_hier.engine.types import Transition


def stored(ring: Ring) -> Transition:
    """The steps in all slots, [B, C, ...]; those never filled or no longer held as well."""
    environments, capacity = ring.row.shape
    return read(ring, Places(jnp.arange(environments)[:, None], jnp.arange(capacity)[None]))


def of_one_step(ring: Ring, step: Transition) -> Ring:
    """The ring with `step`, a Transition without axes, in every slot."""
    full = lambda x, one: jnp.zeros_like(x) + one
    steps = jax.tree.map(full, ring.steps, step._replace(obs=(), next_obs=()))
    both = jax.tree.map(lambda x, y: jnp.stack([x, y]), step.obs, step.next_obs)
    observations = jax.tree.map(lambda x, y: x.at[:, :2].set(y), ring.observations, both)
    return replace(ring, steps=steps, observations=observations, row=jnp.zeros_like(ring.row))
