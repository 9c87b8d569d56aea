"""Memories behind one interface: what an agent remembers from step to step.

- `gru`: Cho et al. (2014), with the reset gate on the recurrent product, h' = (1 − u) h + u c. `gru-relu` has an
  unbounded candidate c, as in RL².
- `lstm`: Hochreiter & Schmidhuber (1997) with forget gates, whose bias starts at one.
- `linear`: layers of a diagonal linear recurrence h_t = a_t h_{t−1} + √(1 − a_t²) v_t, whose decay a_t and input v_t
  depend only on the layer's input, as in the RG-LRU of De et al. (Griffin, 2024). All steps can be computed in parallel
  by `jax.lax.associative_scan`.
- `s5`: a diagonal state-space model, of fixed decays and frequencies that are learned (`state_space`).
- `attention`: attention over the last `window` steps, gated as in GTrXL (`attention`).
- `none`: no memory, one layer of ReLU, for comparison.

Back-propagation stores the activations of every step. With `remat_steps` a network unrolls in checkpointed segments of
that many steps: only the carries between segments are stored, and the backward pass recomputes one segment at a time.
The gradients are the same.

Axes in shapes: T steps, B environments, F inputs, H outputs.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxrl_hier.checks import UsageError, unknown
from jaxrl_hier.learning.recurrent.attention import attention
from jaxrl_hier.learning.recurrent.encoders import with_cnn, with_mlp
from jaxrl_hier.learning.recurrent.gated import gru, lstm
from jaxrl_hier.learning.recurrent.interface import Carry, Memory, Params, scan_in_segments, xavier
from jaxrl_hier.learning.recurrent.linear import linear, recurrence
from jaxrl_hier.learning.recurrent.state_space import s5

__all__ = [
    "MEMORIES",
    "Memory",
    "attention",
    "gru",
    "linear",
    "lstm",
    "memory",
    "none",
    "recurrence",
    "s5",
    "scan_in_segments",
    "with_cnn",
    "with_mlp",
]


def none(size: int, remat_steps: int = 0) -> Memory:
    """A layer of ReLU with H = `size`, without a carry."""

    def init(key: jax.Array, features: int) -> Params:
        return {"W": xavier(key, (features, size)), "b": jnp.zeros(size)}

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        return carry, jax.nn.relu(x @ params["W"] + params["b"])

    return Memory(init, lambda: (), step, lambda params, carry, x, first: step(params, carry, x))


MEMORIES: dict[str, Callable[..., Memory]] = {
    "gru": gru,
    "gru-relu": partial(gru, activation="relu"),
    "lstm": lstm,
    "linear": linear,
    "s5": s5,
    "attention": attention,
    "none": none,
}


def memory(name: str, size: int, remat_steps: int = 0, window: int = 128) -> Memory:
    """The memory called `name` with H = `size`.

    Args:
        remat_steps: steps of a segment that the backward pass recomputes; 0: nothing is recomputed.
        window: earlier steps that attention sees; the others have none.

    Raises:
        UsageError: an unknown name, a size or window that is not positive, or negative `remat_steps`.
    """
    if name not in MEMORIES:
        raise unknown("memory", name, MEMORIES)
    if size < 1 or remat_steps < 0 or window < 1:
        raise UsageError(
            "a memory needs a positive size and window and remat_steps of at least 0, "
            f"got {size}, {window} and {remat_steps}"
        )
    of_attention = {"window": window} if name == "attention" else {}
    return MEMORIES[name](size, remat_steps, **of_attention)
