"""What a compiled program does: its floating-point operations, and the data that its devices exchange.

XLA's own `cost_analysis` counts the body of a loop once, however often it runs. Here everything is counted as often as
it runs, from the text of the optimised program. A loop whose number of iterations XLA does not know, such as a line
search, counts once.

Operations are multiplications and additions of matrix products and convolutions (two for each pair), and one for each
element of an arithmetic operation on floating-point numbers. Integers, comparisons, data movement and calls of
libraries (a Cholesky factorisation) are not counted.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

ARITHMETIC = re.compile(
    "add|subtract|multiply|divide|maximum|minimum|power|remainder|negate|abs|exponential|exponential-minus-one|log|"
    "log-plus-one|logistic|sqrt|rsqrt|cbrt|tanh|tan|sine|cosine|atan2|erf|floor|ceil|round-nearest-(afz|even)|sign|clamp"
)
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "bf16": 2}  # of types that do not end in their number of bits


class Shape(NamedTuple):
    """An array's type, such as f32, and its axes."""

    dtype: str
    axes: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.axes)

    @property
    def bytes(self) -> int:
        bits = re.search(r"\d+$", self.dtype)
        return self.size * BYTES.get(self.dtype, max(int(bits[0]) // 8, 1) if bits else 0)

    @property
    def real(self) -> bool:
        return self.dtype.startswith(("f", "bf"))


class Instruction(NamedTuple):
    """One instruction of a program."""

    name: str
    results: list[Shape]
    opcode: str
    operands: list[str]  # names
    attributes: str


@dataclass
class Counts:
    """What a program does on one device."""

    operations: float = 0.0
    number: dict[str, float] = field(default_factory=dict)  # of collectives, by kind
    bytes: dict[str, float] = field(default_factory=dict)  # that one device gives or gets in them, the larger, by kind
    unknown_loops: int = 0  # loops counted once, since their number of iterations is not known

    def __add__(self, other: "Counts") -> "Counts":
        joined = lambda a, b: {k: a.get(k, 0) + b.get(k, 0) for k in a | b}
        return Counts(
            self.operations + other.operations,
            joined(self.number, other.number),
            joined(self.bytes, other.bytes),
            self.unknown_loops + other.unknown_loops,
        )

    def times(self, count: int) -> "Counts":
        """The same, so many times."""
        scaled = lambda a: {k: count * x for k, x in a.items()}
        return Counts(count * self.operations, scaled(self.number), scaled(self.bytes), self.unknown_loops)


def counts(text: str) -> Counts:
    """What a program does, from its text: `compiled.as_text()` of a program compiled by JAX."""
    computations, entry = parsed(text)

    @cache
    def of(computation: str) -> Counts:
        instructions = computations[computation]
        shapes = {i.name: i.results for i in instructions}
        return sum((of_instruction(i, shapes) for i in instructions), Counts())

    def of_instruction(i: Instruction, shapes: dict[str, list[Shape]]) -> Counts:
        called = lambda *names: [of(c) for name in names for c in _called(i.attributes, name)]
        given = [shape for name in i.operands for shape in shapes.get(name, [])]
        kind = i.opcode.removesuffix("-start")
        if i.opcode == "while":
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', i.attributes)
            once = sum(called("body", "condition"), Counts(unknown_loops=0 if trips else 1))
            return once.times(int(trips[1]) if trips else 1)
        if i.opcode == "conditional":
            branches = called("branch_computations", "true_computation", "false_computation")
            return max(branches, key=lambda c: c.operations)
        if kind in COLLECTIVES:
            size = max(sum(s.bytes for s in shapes) for shapes in (given, i.results))
            return Counts(number={kind: 1}, bytes={kind: size})
        if i.opcode in ("fusion", "call", "async-start"):
            return sum(called("calls", "to_apply", "called_computations"), Counts())
        return Counts(float(_operations(i, given)))

    return of(entry)


def _operations(i: Instruction, given: list[Shape]) -> int:
    if not any(s.real for s in i.results):
        return 0
    size = i.results[0].size
    if i.opcode == "dot":
        contracted = _numbers(i.attributes, "lhs_contracting_dims")
        return 2 * size * math.prod(given[0].axes[axis] for axis in contracted)
    if i.opcode == "convolution":
        labels = re.search(r"dim_labels=\w+_(\w+)->", i.attributes)
        assert labels is not None
        return 2 * size * given[1].size // given[1].axes[labels[1].index("o")]
    if i.opcode in ("reduce", "reduce-window"):
        return given[0].size
    return size if ARITHMETIC.fullmatch(i.opcode) else 0


def parsed(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The instructions of each computation of a program, and the name of the one that it begins with."""
    computations: dict[str, list[Instruction]] = {}
    entry = name = ""
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$", line):
            name = header[2]
            computations[name] = []
            entry = name if header[1] else entry
        elif line.startswith("}"):
            name = ""
        elif name and (found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line)):
            results, rest = _cut(found[2]) if found[2].startswith("(") else found[2].split(" ", 1)
            opcode, _, rest = rest.strip().partition("(")
            operands, attributes = _cut("(" + rest)
            names = re.findall(r"%([\w.\-]+)", operands)
            computations[name].append(Instruction(found[1], list(_shapes(results)), opcode, names, attributes))
    return computations, entry


def _cut(text: str) -> tuple[str, str]:
    """The parenthesis that a text begins with, and the rest."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[: at + 1], text[at + 1 :]
    raise ValueError(f"a parenthesis is not closed: {text[:60]}")


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, axes in re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", text):
        yield Shape(dtype, tuple(map(int, filter(None, axes.split(",")))))


def _called(attributes: str, name: str) -> list[str]:
    """The computations that an attribute names: name=%a, or name={%a, %b}."""
    found = re.search(rf"\b{name}=(\{{[^}}]*\}}|%[\w.\-]+)", attributes)
    return re.findall(r"%([\w.\-]+)", found[1]) if found else []


def _numbers(attributes: str, name: str) -> list[int]:
    found = re.search(rf"\b{name}=\{{([\d,]*)\}}", attributes)
    return [int(x) for x in found[1].split(",") if x] if found else []
