"""What is wrong with a command line is one line, which names the flag and what would be right."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
import tyro

from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.cli import _parse_train, main
from jaxrl_hier.command_line import arguments_of, in_one_line, parse
from jaxrl_hier.settings import BaseConfig, Most, Rate


@dataclass(frozen=True)
class Config(BaseConfig):
    size: int = 3
    rate: Rate = 0.1
    small: Annotated[float, Most(1.0, "as shares go")] = 0.5
    bound: float | None = None
    layers: tuple[int, ...] = (8,)
    range: tuple[float, float] | None = None
    kind: Literal["a", "b"] = "a"
    double: bool = False


@dataclass(frozen=True)
class Arguments:
    env: str = "Pendulum-v1"
    config: Config = field(default_factory=Config)


def read(*args):
    return parse(Arguments, args, "prog")


@pytest.mark.parametrize(
    ("args", "config"),
    [
        ((), Config()),
        (("--size", "7", "--rate=1e-3", "--kind", "b"), Config(size=7, rate=1e-3, kind="b")),
        (("--bound", "-2", "--layers", "4", "5", "--double"), Config(bound=-2.0, layers=(4, 5), double=True)),
        (("--bound", "None", "--layers", "--no-double"), Config(layers=())),
        (("--range", "-1", "0"), Config(range=(-1.0, 0.0))),
        (("--range", "None", "--size", "1", "--size", "2"), Config(size=2)),
    ],
)
def test_what_is_right_is_read_as_tyro_reads_it(args, config):
    assert read(*args).config == config


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--sise 3", "unknown flag '--sise'; nearest: --size"),
        ("--size", "--size needs a value, a whole number"),
        ("--size --double", "--size needs a value, a whole number"),
        ("--size three", "--size must be a whole number, got 'three'"),
        ("--size 2.5", "--size must be a whole number, got '2.5'"),
        ("--size 2147483648", "--size must be at most 2147483647, the largest integer of 32 bits, got 2147483648"),
        ("--size 3 4", "unexpected '4' after --size 3: settings are written --name value"),
        ("--rate nan", "--rate must be finite, in float32 too, got nan"),
        ("--rate=", "--rate must be a number, got ''"),
        ("--small 2", "--small must be at most 1, as shares go, got 2.0"),
        ("--bound x", "--bound must be a number, got 'x'"),
        ("--layers 8 x", "--layers must be a whole number, got 'x'"),
        ("--range 1", "--range needs 2 numbers, got 1"),
        ("--range", "--range needs 2 numbers, got none"),
        ("--range 1 2 3", "unexpected '3' after --range 1 2: settings are written --name value"),
        ("--kind c", "--kind must be one of a, b, got 'c'"),
        ("--kind", "--kind needs a value, one of a, b"),
        ("--double 1", "--double takes no value, got '1'; its opposite is --no-double"),
        ("--no-double=x", "--no-double takes no value, got 'x'; its opposite is --double"),
        ("--no-size", "unknown flag '--no-size'; nearest: --size"),
        ("--env", "--env needs a value, a string"),
        ("Pendulum-v1", "unexpected 'Pendulum-v1': settings are written --name value"),
        ("-size 3", "unexpected '-size': settings are written --name value"),
    ],
)
def test_what_is_wrong_is_one_line(args, message):
    with pytest.raises(UsageError) as error:
        read(*args.split())
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def command(run: tyro.conf.Positional[str], iteration: int | None = None) -> tuple[str, int | None]:
    return run, iteration


def test_words_without_a_flag():
    assert parse(command, ["runs/a", "--iteration", "3"], "prog") == ("runs/a", 3)
    assert parse(command, ["--iteration", "3", "runs/a"], "prog") == ("runs/a", 3)
    for args, message in (
        ([], "run is missing, see prog --help"),
        (["a", "b"], "unexpected 'b', see prog --help"),
        (["a", "--iteration", "x"], "--iteration must be a whole number, got 'x'"),
    ):
        with pytest.raises(UsageError, match=message):
            parse(command, args, "prog")


def test_what_tyro_refuses_alone_is_one_line_too():
    box = "╭─ Value error ──╮\n│ Error parsing config: │\n│ a is b │\n│ ───── │\n│ For full helptext │\n╰──╯\n"
    assert in_one_line(box) == "a is b"

    @dataclass
    class Odd:
        size: int = 3

        def __post_init__(self):
            if self.size % 2 == 0:
                raise ValueError(f"size must be odd, got {self.size}")

    @dataclass
    class Outer:
        config: Odd = field(default_factory=Odd)

    with pytest.raises(UsageError, match=r"^size must be odd, got 4$"):
        parse(Outer, ["--size", "4"], "prog")


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS))
def test_every_flag_of_every_algorithm_is_known(name):
    """The flags that words are checked against are those that tyro has: each is refused without a value by its name."""
    module, entry = registry.module(name), registry.entry(name)
    default = module.Config(**entry.config)
    flags = arguments_of(module.Config).flags
    assert set(flags) == {"--" + field.replace("_", "-") for field in vars(default)}
    for flag, kind in flags.items():
        if kind is not bool and "tuple" not in str(kind):
            with pytest.raises(UsageError, match=f"^{flag} needs a value, "):
                _parse_train(name, [flag])


def test_mistakes_exit_with_2(capsys):
    for argv, message in (
        (["train", "maml", "--environments", "2147483648"], "unknown flag '--environments'; nearest: "),
        (
            ["train", "maml", "--inner-learning-rate", "nan"],
            "--inner-learning-rate must be finite, in float32 too, got nan",
        ),
        (["evaluate"], "run is missing, see jaxrl-hier evaluate --help"),
        (["plot", "a", "--out"], "--out needs a value, a string"),
        (["export", "a", "--cvs"], "unknown flag '--cvs'; nearest: --csv"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert error.startswith(f"jaxrl-hier: {message}")
        assert error.count("\n") == 1
