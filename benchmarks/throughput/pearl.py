"""Gradient steps of PEARL: this project beside a plain PyTorch reference, in one run on the same cores.

    python -m benchmarks.throughput.pearl --torch-python PYTHON     # one with torch; default: this

At the published sizes (16 tasks × 256 steps through networks of 3 × 300, contexts of 1024 steps through 3 × 200) and at
small ones. A step draws its tasks, contexts and batches from memory; ours also plays 40 environment steps in each block
of gradient steps, which an iteration cannot do without. Processes of theirs and blocks of ours alternate; medians.

At the published sizes the work is matrix products. The floor is the time that they would take at the speed of one of
them, 4096 × 300 by 300 × 300, measured in between: products that a gradient does not need are not counted.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import jaxrl_envs
from benchmarks.results import ROOT, provenance, write
from jaxrl_hier.meta import pearl

SIZES: dict[str, tuple[dict[str, int], int]] = {  # sizes, gradient steps in a block
    "published sizes": ({"meta_batch": 16, "batch": 256, "context": 1024, "hidden": 300, "encoder": 200}, 5),
    "small sizes": ({"meta_batch": 8, "batch": 32, "context": 64, "hidden": 32, "encoder": 32}, 500),
}


@dataclass(frozen=True)
class Arguments:
    torch_python: str = sys.executable
    """a Python with torch"""
    rounds: int = 3
    """processes of theirs for each size"""
    blocks: int = 3
    """timed blocks in each round"""
    out: Path | None = None
    """the JSON; default benchmarks/results/throughput/pearl-<device>.json"""


class Program:
    """A compiled iteration of so many gradient steps and the speeds that it ran at."""

    def __init__(self, sizes: dict[str, int], updates: int):
        layers = {name: (sizes[name],) * 3 for name in ("hidden", "encoder")}
        visit = {"visits": 1, "initial": 1000, "prior": 20, "posterior": 20, "updates": updates, "capacity": 80 * 1100}
        env, tasks = jaxrl_envs.make("sparse-point-robot")
        algorithm = pearl.make(pearl.Config(**{**sizes, **layers, **visit, "learning_rate": 3e-4}), env, tasks)
        self.updates, self.speeds = updates, []
        self.state = jax.jit(algorithm.init)(jax.random.key(0))
        begun = time.perf_counter()
        self.step = jax.jit(lambda state: algorithm.step(state)[0], donate_argnums=0).lower(self.state).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.run()
        self.speeds.clear()  # first call: page faults, thread pools

    def run(self) -> None:
        begun = time.perf_counter()
        self.state = jax.block_until_ready(self.step(self.state))
        self.speeds.append(self.updates / (time.perf_counter() - begun))


def product_speed(repeats: int = 20) -> float:
    """Floating point operations per second of products of 4096 × 300 by 300 × 300."""
    x, w = jnp.ones((4096, 300)), jnp.ones((300, 300)) / 300

    @jax.jit
    def products(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, x: x @ w, x)

    jax.block_until_ready(products(x))
    begun = time.perf_counter()
    jax.block_until_ready(products(x))
    return repeats * 2 * x.size * 300 / (time.perf_counter() - begun)


def operations(sizes: dict[str, int], obs: int = 2, action: int = 2, latent: int = 5) -> int:
    """Floating point operations of the matrix products in a gradient step."""

    def network(rows: int, inputs: int, hidden: int, outputs: int) -> tuple[int, int]:
        layers = [inputs, *[hidden] * 3, outputs]
        return 2 * rows * sum(a * b for a, b in pairwise(layers)), 2 * rows * inputs * hidden

    rows, hidden = sizes["meta_batch"] * sizes["batch"], sizes["hidden"]
    critic, _ = network(rows, obs + latent + action, hidden, 1)
    value, value_first = network(rows, obs + latent, hidden, 1)
    actor, actor_first = network(rows, obs + latent, hidden, 2 * action)
    encoder, encoder_first = network(
        sizes["meta_batch"] * sizes["context"], obs + action + 1, sizes["encoder"], 2 * latent
    )
    # forward, with respect to weights and to inputs; the first layers' inputs matter to the critics alone
    trained = 3 * (2 * critic + value + actor + encoder) - value_first - actor_first - encoder_first
    return trained + 2 * 2 * critic + value  # the critics as judges of the actor, forward and for its gradient; V'


def peer(python: str, sizes: dict[str, int], steps: int, blocks: int, threads: int) -> list[float]:
    """Gradient steps per second of each timed block of the PyTorch reference."""
    script = Path(__file__).with_name("torch_pearl.py")
    flags = [part for name, value in sizes.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    flags += ["--steps", str(steps), "--blocks", str(blocks), "--threads", str(threads)]
    done = subprocess.run([python, str(script), *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the PyTorch reference failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["steps_per_second"]


def main(arguments: Arguments) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    programs = {label: Program(*size) for label, size in SIZES.items()}
    cores = len(os.sched_getaffinity(0))
    theirs: dict[tuple[str, int], list[float]] = {}
    products = []
    for _ in range(arguments.rounds):
        for label, (sizes, steps) in SIZES.items():
            for threads in sorted({1, cores}):
                for _ in range(arguments.blocks):
                    programs[label].run()
                    products.append(product_speed())
                speeds = peer(arguments.torch_python, sizes, steps, arguments.blocks, threads)
                theirs.setdefault((label, threads), []).extend(speeds)

    rows = [row(label, threads, programs[label], speeds) for (label, threads), speeds in theirs.items()]
    label = "published sizes"
    speed = statistics.median(products)
    floor = speed / operations(SIZES[label][0])
    ours = statistics.median(programs[label].speeds)
    rows.append(
        {
            "what": f"PEARL, {label}",
            "unit": "gradient steps per second",
            "ours": ours,
            "peer": f"the matrix products alone, at {speed / 1e9:.0f} GFLOP/s",
            "theirs": floor,
            "ratio": ours / floor,
            "compile_seconds": programs[label].compile_seconds,
            "aggregate": False,
            "note": f"{operations(SIZES[label][0]) / 1e9:.1f} GFLOP for a step",
        }
    )
    content = {**provenance(), "rows": rows, "cpu_count": os.cpu_count(), "load": os.getloadavg()[0]}
    content["command"] = content["command"].replace(arguments.torch_python, "PYTHON")
    device = jax.devices()[0]
    kind = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "-")
    path = write(arguments.out or ROOT / "throughput" / f"pearl-{kind}.json", content)
    for r in rows:
        print(f"{r['what']:<40}{r['ours']:10.2f}  {r['peer']:<52}{r['theirs']:10.2f}  ratio {r['ratio']:.2f}")
    print(path)


def row(label: str, threads: int, program: Program, speeds: list[float]) -> dict[str, Any]:
    ours, theirs = statistics.median(program.speeds), statistics.median(speeds)
    return {
        "what": f"PEARL, {label}",
        "unit": "gradient steps per second",
        "ours": ours,
        "peer": f"plain PyTorch, own reference, {threads} thread{'s' if threads > 1 else ''}",
        "theirs": theirs,
        "ratio": ours / theirs,
        "compile_seconds": program.compile_seconds,
        "aggregate": False,
        "note": f"medians of {len(program.speeds)} and {len(speeds)} blocks",
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments))
