"""Random settings of every algorithm: valid ones train and stay finite, invalid ones are refused in one line.

    python -m tests.settings --seed 1 --count 3000

A program is compiled for random structural settings, and vmapped over random numbers. Settings are valid where `make`
accepts them. Invalid ones go through the command line, in this process.
"""

import contextlib
import io
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints
from unittest import mock

import tests.conftest  # noqa: F401  the flags that make XLA compile quickly, before jax is imported

# isort: split
import jax
import jax.numpy as jnp
import numpy as np

import jaxrl_hier
from jaxrl_hier import registry
from jaxrl_hier.building import environment
from jaxrl_hier.checks import UsageError
from jaxrl_hier.cli import main as command_line
from jaxrl_hier.command_line import flag_of, plain
from jaxrl_hier.engine.chunk import make_chunk
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.settings import traceable
from tests.compiling import quick_jit
from tests.sizes import SIZES, Settings

MEMBERS = 11  # random numbers that share a program
ITERATIONS = 2
CHANGES = 3  # structural settings of a program that differ from those of `tests.sizes`, at most
DRAWS = 200  # structural settings are drawn again so often before it counts as an error that none is valid

# What numbers are allowed, by setting: in [0, 1], at least 0, or any; every other one must be positive
SHARES = {
    *("discount", "worker_discount", "manager_discount", "gae_lambda", "epsilon", "target_rate", "step_size"),
    *("critic_step_size", "random_actions", "random_goals", "random_goals_at_start", "line_search_shrink"),
    "master_discount",
}
FROM_ZERO = {
    *("target_noise", "target_noise_clip", "exploration_noise", "goal_noise", "action_penalty", "her_goals"),
    *("policy_step_size", "termination_step_size", "polling_interval_decrease", "intrinsic_weight"),
    *("extrinsic_weight", "entropy_weight", "critic_weight", "cg_damping", "kl_weight", "eval_inner_rate_decay"),
    *("policy_regularization", "warmup_steps", "recorded_episodes", "learning_rate_iterations", "inner_steps"),
    *("eval_inner_steps", "remat_steps", "entropy_decay_iterations", "prior_steps", "posterior_steps"),
    *("extra_posterior_steps", "eval_exploration_episodes", "seed", "evaluate_every", "context_parameters"),
    *("value_sweeps", "option_entropy_weight", "master_entropy_weight", "warmup_updates", "eval_updates"),
}
FROM_ZERO_IN = {("pearl", "eval_episodes")}  # algorithm and setting: no episode before the first is allowed
ANY = {"initial_value", "deliberation_cost", "target_entropy"}


# Valid settings


class Program(NamedTuple):
    """Settings that share a compiled program."""

    algorithm: str
    structure: Settings
    numbers: dict[str, np.ndarray]  # [MEMBERS]


def program_of(algorithm: str, random: np.random.Generator) -> Program:
    """Random settings that `make` accepts. Raises AssertionError if it accepts none, or fails in another way."""
    for _ in range(DRAWS):
        structure = SIZES[algorithm] | structural(algorithm, random)
        members = list(itertools.islice(accepted(algorithm, structure, random), MEMBERS))
        if len(members) == MEMBERS:
            return Program(algorithm, structure, {k: np.array([m[k] for m in members]) for k in members[0]})
    raise AssertionError(f"{algorithm}: none of {DRAWS} random settings is valid")


def accepted(algorithm: str, structure: Settings, random: np.random.Generator) -> Iterator[Settings]:
    """Random numbers that `make` accepts with this structure."""
    given = numbers(algorithm, structure, random)
    for attempt in range(3 * MEMBERS):
        drawn = {k: number(k, type(v), random) for k, v in given.items()}
        try:
            jaxrl_hier.make(algorithm, **structure | drawn)
            yield drawn
        except UsageError as error:
            if "\n" in str(error):
                raise AssertionError(f"{algorithm}: {error}") from error
            if attempt == 3:  # it is the structure that is refused
                return


def structural(algorithm: str, random: np.random.Generator) -> Settings:
    """Random values for some of the structural settings."""
    config = registry.module(algorithm).Config
    default = config(**registry.entry(algorithm).config | SIZES[algorithm])
    hints = get_type_hints(config)
    names = [name for name in hints if name in vars(default) and name not in traceable(config)]
    chosen = random.permutation(names)[: random.integers(0, CHANGES + 1)].tolist()
    return {name: value_of(hints[name], getattr(default, name), random) for name in chosen}


def value_of(kind: Any, default: Any, random: np.random.Generator) -> Any:
    """A random value of a structural setting, near its default."""
    pick = lambda values: values[random.integers(len(values))]
    if get_origin(kind) in (Union, UnionType) and random.random() < 0.3:
        return None
    inner = plain(kind)
    if inner is bool:
        return bool(random.integers(2))
    if get_origin(inner) is Literal:
        return pick(get_args(inner))
    if inner is int:
        return pick([1, 2, 4] if not default else [1, 2, default, default + 1, 2 * default])
    if get_args(inner) == (float, float):
        return pick([(-1.0, 0.0), (-10.0, 10.0), (0.0, 0.0)])
    return pick([default, (), (4,), (8, 4)]) if default else default


def numbers(algorithm: str, structure: Settings, random: np.random.Generator) -> Settings:
    """The settings that may be traced; those that are None stay so, or get a number."""
    config = registry.module(algorithm).Config
    try:
        default = config(**registry.entry(algorithm).config | structure)
    except UsageError:
        return {}
    found = {k: getattr(default, k) for k in traceable(config)}
    return {k: 1.0 if v is None else v for k, v in found.items() if v is not None or random.random() < 0.3}


def number(name: str, kind: type, random: np.random.Generator) -> float | int:
    """A random number that a setting allows; one in eight is an end of its range."""
    end = random.random() < 0.125
    if kind is int:
        return int(random.integers(0 if name in FROM_ZERO else 1, 9))
    if name in SHARES:
        return float(random.integers(2)) if end else float(random.uniform())
    if name in ANY:
        return 0.0 if end else float(random.normal())
    if name in FROM_ZERO and end:
        return 0.0
    return float(10 ** random.uniform(*((-5, -1) if name.endswith("learning_rate") else (-2, 1))))


def stays_finite(program: Program) -> list[str]:
    """Train all members of a program, and say which became NaN or infinite, and where."""

    def trained(settings: Settings, seed: Any) -> Any:
        made = jaxrl_hier.make(program.algorithm, **program.structure | settings)
        state = jax.tree.map(lambda x: x[None], made.init(jax.random.key(seed)))
        return make_chunk(made, ITERATIONS)(state)[2]

    given = {k: jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else jnp.float32) for k, x in program.numbers.items()}
    bad = quick_jit(jax.vmap(trained))(given, jnp.arange(MEMBERS))
    found = []
    for i in range(MEMBERS):
        infinite = [name for name, position in jax.device_get(bad).items() if (position[i] < ITERATIONS).any()]
        if infinite:
            numbers = {k: x[i].item() for k, x in program.numbers.items()}
            found.append(f"{program.algorithm} {program.structure | numbers}, seed {i}: {', '.join(infinite)}")
    return found


# Invalid settings


def invalid(algorithm: str, random: np.random.Generator) -> list[str]:
    """Flags of `jaxrl-hier train` that cannot work: one of a wrong kind or range, or several in a wrong relation."""
    config = registry.module(algorithm).Config
    if random.random() < 0.3 and (flags := unrelated(algorithm, random)):
        return flags
    owner = RunConfig if random.random() < 0.1 else config
    hints = {k: v for k, v in get_type_hints(owner, include_extras=True).items() if k in vars(owner())}
    name = list(hints)[random.integers(len(hints))]
    words = wrong_words(algorithm, name, hints[name])
    return [flag_of(name), *words[random.integers(len(words))]]


def wrong_words(algorithm: str, name: str, kind: Any) -> list[list[str]]:
    """Words after the flag of a setting that are wrong, whatever the other settings are."""
    inner = plain(kind)
    if inner is bool:
        return [["yes"], ["1"]]
    if get_origin(inner) is Literal:
        return [["nothing"], []]
    if inner is str:
        return [[]]
    if get_origin(inner) is tuple:
        if get_args(inner)[0] is float:
            return [["1", "0"], ["1"], ["nan", "1"], ["a", "b"]]
        return [["x"], ["2.5"], ["2147483648"], *([] if name == "goal_dimensions" else [["0"], ["8", "-1"]])]
    wrong = ["x", "nan", "inf", "1e400", ""]
    wrong += ["2.5", "2147483648"] if inner is int and name != "seed" else []
    from_zero = name in SHARES | FROM_ZERO or (algorithm, name) in FROM_ZERO_IN
    wrong += [] if name in ANY else ["-1", "-0.001"] if from_zero else ["0", "-1"]
    wrong += ["1.001", "2"] if name in SHARES else ["1e10"] if name.endswith("learning_rate") else []
    return [[word] for word in wrong] + [[]]


def unrelated(algorithm: str, random: np.random.Generator) -> list[str]:
    """Flags for all settings of a relation and those that could be adjusted to it, which break it; none if random whole
    numbers do not break it."""
    entry, module = registry.entry(algorithm), registry.module(algorithm)
    config, run = module.Config(**entry.config), RunConfig(**entry.run)
    env, tasks = environment(entry.env)
    found = [r for r in [*config.relations(env, tasks), *run.relations(env, tasks)] if r.counts]
    if not found:
        return []
    relation = found[random.integers(len(found))]
    before = vars(config) | vars(run)
    for _ in range(DRAWS):
        drawn = {name: int(10 ** random.uniform(0, 4)) for name in relation.counts}
        if not relation.holds(SimpleNamespace(**before | drawn)):
            given = {name: before[name] for name in relation.gives} | drawn
            return [word for name, value in given.items() for word in (flag_of(name), *words_of(value))]
    return []


def words_of(value: Any) -> list[str]:
    """A value as words after its flag."""
    return [str(x) for x in value] if isinstance(value, tuple) else [str(value)]


def refusal(algorithm: str, flags: Sequence[str]) -> str | None:
    """None if the command line refuses these flags as it should, otherwise what it did."""
    told = io.StringIO()
    trained = mock.patch("jaxrl_hier.engine.train.train", side_effect=AssertionError("it would train"))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(told), trained:
        out = Path(folder) / "run"
        try:
            command_line(["train", algorithm, *flags, "--out", str(out), "--quiet"])
            what = "it ended without a word"
        except SystemExit as stop:
            what = "" if stop.code == 2 else f"exit code {stop.code}"
        except Exception as error:
            what = f"{type(error).__name__}: {str(error)[:200]}"
        if not what and out.exists():
            what = "it left a folder"
    lines = told.getvalue().splitlines()
    if not what and not (len(lines) == 1 and lines[0].startswith("jaxrl-hier: ")):
        what = f"{len(lines)} lines: {lines[:3]}"
    return f"train {algorithm} {' '.join(flags)}: {what}" if what else None


# Many of them


def all_stay_finite(seed: int, count: int) -> Iterator[list[str]]:
    """For each of so many random programs, the members that did not stay finite."""
    random = np.random.default_rng(seed)
    names = itertools.cycle(registry.ALGORITHMS)
    for _ in range(-(-count // MEMBERS)):
        yield stays_finite(program_of(next(names), random))


def all_are_refused(seed: int, count: int) -> Iterator[str | None]:
    """For each of so many invalid settings, None, or what the command line did instead of refusing them."""
    random = np.random.default_rng(seed)
    names = itertools.cycle(registry.ALGORITHMS)
    for _ in range(count):
        name = next(names)
        yield refusal(name, invalid(name, random))


@dataclass
class Arguments:
    """Random settings of every algorithm."""

    seed: int = 0
    """of the random numbers"""
    count: int = 300
    """valid settings, and as many invalid ones"""


def main(arguments: Arguments) -> None:
    begun = time.perf_counter()
    wrong = []
    for refused in all_are_refused(arguments.seed, arguments.count):
        wrong += [] if refused is None else [refused]
    print(f"{arguments.count} invalid settings, {len(wrong)} not refused, {time.perf_counter() - begun:.0f} s")
    begun, infinite = time.perf_counter(), list[str]()
    for found in all_stay_finite(arguments.seed, arguments.count):
        infinite += found
    print(f"{arguments.count} valid settings, {len(infinite)} not finite, {time.perf_counter() - begun:.0f} s")
    print("\n".join([*wrong, *infinite]))
    raise SystemExit(1 if wrong or infinite else 0)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Arguments))
