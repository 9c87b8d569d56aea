"""How the work of an iteration divides among devices: every preset at a small size, on 1, 2 and 8 devices.

    python -m benchmarks devices             # on a CPU they are virtual
    python -m benchmarks devices maml rl2 --json

Each preset gives rows, one of them with a verdict: each of `VIRTUAL` devices has at most `MOST` / `VIRTUAL` of the work
of one alone. Programs are compiled and read (`benchmarks.programs`), not run. All numbers are those of one device and
one iteration of one seed. Learners that learn from one step after the other, such as Q-learning in a table, share only
the environments.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax

import jaxrl_hier
from jaxrl_hier import registry
from jaxrl_hier.building import config_of
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.chunk import initial
from jaxrl_hier.engine.room import size
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.sharding import device_mesh, layout
from jaxrl_hier.engine.train import Compiled

from .determinism import VIRTUAL, small
from .programs import COLLECTIVES, counts
from .results import ROOT, Row, provenance, write
from .throughput.algorithms import updates

COUNTS = (1, 2, VIRTUAL)
MOST = 1.3  # times what an even division would leave to a device
FLAG = "xla_force_host_platform_device_count"


def sizes(name: str) -> dict[str, Any]:
    """Settings of a preset that are small and divide among `VIRTUAL` devices, with batches that fill them."""
    config = small(name)
    if {"environments", "minibatch_size"} <= config.keys():
        return config | {"environments": 128, "minibatch_size": 64}
    return config | {"batch_size": 256} if "capacity" in config and "train_tasks" not in config else config


def row(name: str, devices: int, **settings: Any) -> dict[str, Any]:
    """What one device of so many does in an iteration of a preset.

    Args:
        settings: of the algorithm, in the place of `sizes`.

    Returns:
        operations: floating-point operations. collectives and collective_bytes: number and bytes of the collective
        operations, by kind. parameter_bytes: what one exchange of all gradients takes. updates: gradient steps.
        state_bytes, temporary_bytes: memory. unknown_loops: loops that were counted once.
    """
    algorithm = jaxrl_hier.make(name, **sizes(name) | settings)
    shapes = initial(algorithm, RunConfig())[0]
    where = layout(shapes, device_mesh(devices))
    placed = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, where)
    trainer = Compiled(algorithm)
    trainer.compile(placed, 1)
    found, memory = counts(trainer.chunk.as_text()), trainer.chunk.memory_analysis()
    return {
        "algorithm": name,
        "devices": devices,
        "operations": found.operations,
        "collectives": found.number,
        "collective_bytes": found.bytes,
        "parameter_bytes": size(shapes.params),
        "updates": updates(config_of(name, sizes(name) | settings), algorithm.env_steps),
        "state_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "unknown_loops": found.unknown_loops,
    }


def rows_of(found: Sequence[dict[str, Any]]) -> list[Row]:
    """The rows of one preset on `COUNTS` devices, for the result file."""
    by_count = {r["devices"]: r for r in found}
    alone, all_of_them = by_count[1], by_count[VIRTUAL]
    share = lambda r: r["operations"] / alone["operations"]
    memory = lambda r: r["state_bytes"] + r["temporary_bytes"]
    numbers = {f"share of the work, {n} devices": share(r) for n, r in by_count.items() if n > 1}
    numbers |= {"exchanges": sum(all_of_them["collectives"].values()), "gradient steps": alone["updates"]}
    numbers |= {"bytes exchanged": sum(all_of_them["collective_bytes"].values())}
    numbers |= {"bytes of the parameters": alone["parameter_bytes"]}
    numbers |= {f"bytes of memory, {n} device{'s' if n > 1 else ''}": memory(by_count[n]) for n in (1, VIRTUAL)}
    about = {"method": "counted in the compiled program"}
    made = {what: Row.computed(f"{alone['algorithm']}: {what}", number, **about) for what, number in numbers.items()}
    made[f"share of the work, {VIRTUAL} devices"].judged(f"at most {MOST / VIRTUAL}")
    return [*made.values()]


def with_virtual_devices() -> None:
    """Begin this command anew where a CPU has fewer devices than `VIRTUAL` and XLA_FLAGS do not say how many."""
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.default_backend() == "cpu" and jax.device_count() < VIRTUAL and FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{FLAG}={VIRTUAL}"
        os.execv(sys.executable, [sys.executable, "-m", __package__, *sys.argv[1:]])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as text. Operations are those of one device, and their share of what one device does alone."""
    alone = {r["algorithm"]: r["operations"] for r in rows if r["devices"] == 1}
    head = f"{'':22}{'devices':>8}{'operations':>12}{'share':>8}{'collectives':>13}{'bytes':>9}{'parameters':>12}"
    lines = [head + f"{'state':>9}{'temporary':>11}"]
    for r in rows:
        share = f"{r['operations'] / alone[r['algorithm']]:.3f}" if alone.get(r["algorithm"]) else ""
        line = f"{r['algorithm']:22}{r['devices']:>8}{r['operations']:>12.3g}{share:>8}"
        line += f"{sum(r['collectives'].values()):>13.0f}{short(sum(r['collective_bytes'].values())):>9}"
        line += f"{short(r['parameter_bytes']):>12}{short(r['state_bytes']):>9}{short(r['temporary_bytes']):>11}  "
        lines.append(line + ", ".join(f"{r['collectives'][k]:.0f} {k}" for k in COLLECTIVES if k in r["collectives"]))
    return "\n".join(lines)


def short(count: float) -> str:
    """A number of bytes."""
    for factor, unit in ((2**30, "G"), (2**20, "M"), (2**10, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f}"


def measure(
    names: Sequence[str] = (),
    out: Path = Path("runs") / "devices",
    publish: bool = False,
    as_json: bool = False,
    devices: Sequence[int] = (),
) -> Path:
    """Print the table, a preset at a time, and write <out>/devices.json, or the published file.

    Args:
        as_json: print the rows as JSON instead.
        devices: numbers of devices; default: those of `COUNTS` that there are.

    Raises:
        UsageError: an unknown preset, or a part of them to publish.
    """
    if unknown := [name for name in names if name not in registry.ALGORITHMS]:
        raise UsageError(f"no preset is called {unknown[0]}; there are {', '.join(registry.ALGORITHMS)}")
    if publish and names:
        raise UsageError("some of the presets are not published: leave out their names")
    if publish and jax.device_count() < VIRTUAL:
        raise UsageError(f"the published table is that of {VIRTUAL} devices, and there are {jax.device_count()}")
    begun, about = time.perf_counter(), provenance()
    rows: list[dict[str, Any]] = []

    def written(folder: Path) -> Path:
        content = {"name": "devices", "paper": "", **about, "hardware": "compiled for a CPU, not run"}
        content |= {"command": f"python -m {__package__} devices", "wall_seconds": time.perf_counter() - begun}
        if {1, VIRTUAL} <= {r["devices"] for r in rows}:
            presets = [[*of_it] for _, of_it in groupby(rows, itemgetter("algorithm"))]
            content["rows"] = [r.as_json() for found in presets for r in rows_of(found)]
        return write(folder / "devices.json", content | {"presets": rows})

    for name in names or registry.ALGORITHMS:
        found = [row(name, n) for n in devices or COUNTS if n <= jax.device_count()]
        if not as_json:
            print(table(found).partition("\n")[2] if rows else table(found), flush=True)
        rows += found
        path = written(out)  # if it is stopped, what has been counted is there
    if as_json:
        print(json.dumps(rows, indent=1))
    return written(ROOT / "scaling") if publish else path
