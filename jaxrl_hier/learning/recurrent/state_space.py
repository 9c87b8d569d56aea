"""S5: layers of a diagonal state-space model (Smith et al., Simplified state space layers for sequence modeling, 2022).

Each layer discretises a linear system by zero-order hold and gates what it reads from the state, around which the
input passes unchanged:

    h' = Λ h + B u,   s = 2 Re(C h) + D u                  u: the layer's input, standardised
    h_t = e^{ΛΔ} h_{t−1} + Λ^{−1} (e^{ΛΔ} − 1) B u_t
    y = x + g ⊙ σ(W g + b),   g = GELU(s)

The state is one half of conjugate pairs; Re Λ < 0 holds for all parameters. Λ begins as the eigenvalues of HiPPO-LegS's
normal part, B and C as random ones in the basis of its eigenvectors, and each pair's step Δ between .001 and .1. At the
start of an episode the state is set to zero inside the recurrence (Lu et al., Structured state space models for
in-context reinforcement learning, 2023). Parameters and carry are real numbers, real and imaginary parts apart.

Departure: at the start each column of C is divided by the standard deviation that its state has under white noise, so
that 2 Re(C h) has variance 1, as the LRU normalises its states (Orvieto et al., 2023). With C as published, what a
single step leaves in a slow state is read with a weight of order Δ, and a sign that is seen once is all but lost.

Axes in shapes: T steps, B environments, H outputs, P conjugate pairs.
"""

from math import log

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.learning.recurrent.interface import Carry, Memory, Params, reset, scan_in_segments, xavier
from jaxrl_hier.learning.recurrent.linear import recurrence

STEPS = 1e-3, 0.1  # of Δ at the start

lecun = jax.nn.initializers.lecun_normal()


def s5(size: int, remat_steps: int = 0, layers: int = 2) -> Memory:
    """S5 with H = `size`, P = H / 2, rounded up, and carry [layers, 2, P]: real and imaginary parts of the states."""
    pairs = -(-size // 2)

    def init(key: jax.Array, features: int) -> Params:
        key, *keys = jax.random.split(key, layers + 1)
        return {"embed": xavier(key, (features, size)), "layers": [layer_params(k, size, pairs) for k in keys]}

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        y, after = x @ params["embed"], []
        for i, p in enumerate(params["layers"]):
            a, u, b = terms(p, y)
            h = a * jax.lax.complex(carry[..., i, 0, :], carry[..., i, 1, :]) + b
            after.append(jnp.stack([h.real, h.imag], axis=-2))
            y = out(p, y, u, h)
        return jnp.stack(after, axis=-3), y

    def unroll(params: Params, carry: Carry, x: jax.Array, first: jax.Array) -> tuple[Carry, jax.Array]:
        def run(carry: Carry, rows: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
            x, first = rows
            y, after = x @ params["embed"], []
            for i, p in enumerate(params["layers"]):
                a, u, b = terms(p, y)
                before = jax.lax.complex(carry[:, i, 0], carry[:, i, 1])
                h = recurrence(reset(first, jnp.broadcast_to(a, b.shape)), b, before)
                after.append(jnp.stack([h[-1].real, h[-1].imag], axis=-2))
                y = out(p, y, u, h)
            return jnp.stack(after, axis=1), y

        return scan_in_segments(run, carry, (x, first), remat_steps)

    return Memory(init, lambda: jnp.zeros((layers, 2, pairs)), step, unroll)


def layer_params(key: jax.Array, size: int, pairs: int) -> Params:
    """The parameters of a layer: B [2, P, H] and C [2, H, P] real and imaginary parts."""
    keys = jax.random.split(key, 5)
    frequency, basis = hippo(2 * pairs)
    parts = lambda z: jnp.stack([z.real, z.imag])
    params = {
        "log_decay": log(0.5) * jnp.ones(pairs),  # of −Re Λ
        "frequency": jnp.asarray(frequency, float),  # Im Λ
        "log_step": jax.random.uniform(keys[0], (pairs,), minval=log(STEPS[0]), maxval=log(STEPS[1])),
        "B": parts(basis.conj().T @ lecun(keys[1], (2 * pairs, size))),
        "C": parts(lecun(keys[2], (2 * pairs, size)).T @ basis),
        "D": jax.random.normal(keys[3], (size,)),
        "gate": lecun(keys[4], (size, size)),
        "gate_bias": jnp.zeros(size),
    }
    a, b = discretised(params)
    deviation = jnp.linalg.norm(b, axis=1) / jnp.sqrt(1 - jnp.abs(a) ** 2)  # of each state under white noise
    return params | {"C": params["C"] / deviation}


def hippo(states: int) -> tuple[np.ndarray, np.ndarray]:
    """The normal part −½ I + S of HiPPO-LegS with an even number of states N (S5, equation 7), diagonalised.

    Returns:
        ω [N / 2] > 0 and vectors v [N, N / 2], complex64: S v = i ω v. The other half are their conjugates.
    """
    root = np.sqrt(np.arange(states) + 0.5)
    upper = np.triu(np.outer(root, root), 1)
    frequency, vectors = np.linalg.eigh(-1j * (upper - upper.T))  # ascending
    return frequency[states // 2 :], vectors[:, states // 2 :].astype(np.complex64)


def discretised(p: Params) -> tuple[jax.Array, jax.Array]:
    """e^{ΛΔ} [P] and Λ^{−1} (e^{ΛΔ} − 1) B [P, H] of a layer, complex."""
    rate = jax.lax.complex(-jnp.exp(p["log_decay"]), p["frequency"])
    exponent = rate * jnp.exp(p["log_step"])
    return jnp.exp(exponent), (jnp.expm1(exponent) / rate)[:, None] * jax.lax.complex(p["B"][0], p["B"][1])


def terms(p: Params, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What h_{t−1} is multiplied by, complex [P]; the standardised input u [..., H]; what it adds, complex [..., P]."""
    a, b = discretised(p)
    u = jax.nn.standardize(x)
    return a, u, jax.lax.complex(u @ b.real.T, u @ b.imag.T)


def out(p: Params, x: jax.Array, u: jax.Array, h: jax.Array) -> jax.Array:
    """A layer's output [..., H] from its input x and standardised input u [..., H] and its state h [..., P]."""
    g = jax.nn.gelu(2 * (h.real @ p["C"][0].T - h.imag @ p["C"][1].T) + p["D"] * u)
    return x + g * jax.nn.sigmoid(g @ p["gate"] + p["gate_bias"])
