"""A page for each algorithm, written from its module's docstring, its settings and its entry in the registry.

`write(folder)` writes `pages()`; conf.py calls it before the site is built. Nothing of it is committed.
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.registry import ALGORITHMS, Entry
from jaxrl_hier.settings import traceable

RESULTS = "../../benchmarks/results/papers"


class Page(NamedTuple):
    """What a page says that the code does not."""

    module: str  # in jaxrl_hier
    title: str
    figures: Mapping[str, str] = MappingProxyType({})  # file in benchmarks/results/papers -> caption


WITH_OPTIONS = {"hierarchy_meta.png": "RL² and MAML with options and without, on four families of grid worlds"}
PAGES = {
    "maml": Page(
        "meta.maml",
        "MAML and its family",
        {
            "maml_navigation.png": "Return on 2-D navigation after each gradient step",
            "meta_navigation.png": "Fifteen variants on 2-D navigation, on one budget",
        },
    ),
    "few_shot_regression": Page(
        "meta.few_shot_regression",
        "Few-shot regression",
        {"maml_sinusoid.png": "Error on sine waves after each gradient step"},
    ),
    "rl2": Page(
        "meta.rl2",
        "RL²",
        {
            "rl2_tables.png": "Reward of a trial while learning, beside the classical players",
            "rl2_wang.png": "Regret against pulls on the bandits of Wang et al.",
        },
    ),
    "varibad": Page(
        "meta.varibad",
        "VariBAD",
        {"varibad_navigation.png": "Return of each episode on a new task of grid navigation, beside RL²"},
    ),
    "pearl": Page(
        "meta.pearl",
        "PEARL",
        {"pearl_point_robot.png": "Return on sparse 2-D navigation against episodes of context"},
    ),
    "option_critic": Page(
        "hierarchical.option_critic",
        "Option-critic",
        {"option_critic_network.png": "Learning, option usage and terminations on four environments"},
    ),
    "option_critic_tabular": Page(
        "hierarchical.option_critic_tabular",
        "Option-critic in tables",
        {"option_critic_transfer.png": "Steps per episode, with a goal that moves after 1000 episodes"},
    ),
    "option_ppo": Page("hierarchical.option_ppo", "PPO over options"),
    "smdp_q": Page(
        "hierarchical.smdp_q",
        "SMDP Q-learning",
        {"options_smdp_q.png": "Four Rooms: figure 6 of Sutton, Precup & Singh (1999)"},
    ),
    "intra_option_q": Page(
        "hierarchical.intra_option_q",
        "Intra-option Q-learning",
        {"options_values.png": "Values of options that are never executed: figure 10 of Sutton, Precup & Singh (1999)"},
    ),
    "option_models": Page(
        "hierarchical.option_models",
        "Option models",
        {"options_models.png": "Error of the models: figure 9 of Sutton, Precup & Singh (1999)"},
    ),
    "subgoals": Page(
        "hierarchical.subgoals",
        "Options from subgoals",
        {"options_subgoals.png": "Options learned from subgoals: figure 11 of Sutton, Precup & Singh (1999)"},
    ),
    "maxq": Page(
        "hierarchical.maxq",
        "MAXQ",
        {
            "maxq_taxi.png": "Learning curves on fickle Taxi with the exact optima",
            "maxq_taxi_hierarchy.png": "The task graph with learned and exact values at one state",
        },
    ),
    "fun": Page(
        "hierarchical.fun",
        "FuN",
        {"fun_treasure.png": "Return in the treasure rooms, beside a recurrent actor-critic and without each part"},
    ),
    "hiro": Page(
        "hierarchical.hiro",
        "HIRO",
        {"hiro_points_push.png": "Success of HIRO, its ablations and flat TD3 on push"},
    ),
    "uvfa": Page(
        "goals.uvfa",
        "UVFA",
        {"uvfa_four_rooms.png": "Values for a held-out goal, generalisation, and what a rank can hold"},
    ),
    "dqn": Page(
        "flat.dqn",
        "DQN, with hindsight or without",
        {"her_bit_flipping.png": "Bit flipping with hindsight: success against the number of bits"},
    ),
    "td3": Page(
        "flat.td3",
        "TD3 and DDPG, with hindsight or without",
        {
            "flat_replay.png": "Return while learning on Pendulum and CartPole",
            "her_fetch.png": "FetchReach and FetchPush with hindsight and without",
        },
    ),
    "sac": Page(
        "flat.sac",
        "SAC, with hindsight or without",
        {"flat_replay.png": "Return while learning on Pendulum and CartPole"},
    ),
    "rl2_options": Page("combined.rl2_options", "RL² over options", WITH_OPTIONS),
    "maml_options": Page("combined.maml_options", "MAML over options", WITH_OPTIONS),
    "mlsh": Page(
        "combined.mlsh",
        "MLSH: shared hierarchies",
        {"mlsh_hidden_goals.png": "Return against updates on new goals of Four Rooms, and while training"},
    ),
    "policy_gradient": Page(
        "flat.policy_gradient",
        "PPO, TRPO, A2C and REINFORCE",
        {"flat_policy_gradients.png": "Return while learning on CartPole, Acrobot and Pendulum"},
    ),
    "q_learning": Page("flat.q_learning", "Q-learning"),
    "sarsa": Page("flat.sarsa", "SARSA"),
}


def pages() -> dict[str, str]:
    """File name -> Markdown, of every algorithm and of the list of them."""
    return {f"{name}.md": page_of(page) for name, page in PAGES.items()} | {"index.md": index()}


def write(folder: Path) -> None:
    """Write `pages` into a folder."""
    write_changed(folder, pages())


def write_changed(folder: Path, texts: dict[str, str]) -> None:
    """Write the files whose texts have changed: Sphinx reads those alone again."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def page_of(page: Page) -> str:
    """Equations and departures, commands, settings and figures of one module."""
    module = import_module(f"jaxrl_hier.{page.module}")
    presets = presets_of(page)
    path = f"jaxrl_hier/{page.module.replace('.', '/')}.py"
    parts = [f"# {page.title}", inspect.getdoc(module) or "", f"Source: [`{path}`](../../{path})."]
    if presets:
        commands = "\n".join(f"jaxrl-hier train {name}" for name in presets)
        rows = [(f"`{name}`", entry.summary, f"`{entry.env}`", changes(entry)) for name, entry in presets.items()]
        parts += ["## Commands", f"```sh\n{commands}\n```"]
        parts += [table(("preset", "what it is", "environment", "what it changes of the defaults below"), rows)]
    else:
        parts += ["## Commands", f"In Python only: `jaxrl_hier.{page.module}.make`."]
    parts += ["## Settings", settings_table(module.Config)]
    if presets:
        parts.append(
            "In Python `jaxrl_hier.train(name, setting=value)`, on the command line `--setting value`. Iterations, "
            "seeds and the like are [settings of the run](index.md#settings-of-a-run)."
        )
    if page.figures:
        parts.append("## Figures")
        parts += [f"{caption}:\n\n![{caption}]({RESULTS}/{file})" for file, caption in page.figures.items()]
    return "\n\n".join(parts) + "\n"


def index() -> str:
    """All algorithms by name, and the settings that they share."""
    rows = []
    for file, page in PAGES.items():
        presets = presets_of(page)
        rows += [(f"[`{name}`]({file}.md)", entry.summary) for name, entry in presets.items()]
        if not presets:
            rows.append((f"[{page.title}]({file}.md)", "in Python only"))
    listed = "\n".join(PAGES)
    return (
        f"# Algorithms\n\n{table(('name', 'what it is'), rows)}\n\n"
        "Each page is written from the code: equations and departures from the module's docstring, settings from its "
        f"`Config`.\n\n## Settings of a run\n\n{settings_table(RunConfig)}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    )


def presets_of(page: Page) -> dict[str, Entry]:
    """The registered algorithms of a page's module, by name."""
    return {name: entry for name, entry in ALGORITHMS.items() if entry.module == f"jaxrl_hier.{page.module}"}


def changes(entry: Entry) -> str:
    """What a preset sets, run and algorithm."""
    return ", ".join(f"`{name}={value!r}`" for name, value in (entry.run | entry.config).items())


def settings_table(config: Any) -> str:
    """Names, defaults, types and help of the settings of a Config."""
    helped, hints, traced = help_of(config), get_type_hints(config), traceable(config)
    rows = []
    for f in dataclasses.fields(config):
        what = kind(hints[f.name]) + ", may be traced" * (f.name in traced)
        rows.append((f"`{f.name}`", f"`{f.default!r}`", what, helped[f.name]))
    return table(("setting", "default", "type", "meaning"), rows)


def help_of(config: Any) -> dict[str, str]:
    """Setting -> the text under it in the source, of the class or of those that it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__[:-1]):
        (source,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(source, ast.ClassDef)
        for pair in pairwise(source.body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def kind(hint: Any) -> str:
    """A type as a reader of a table wants it: `float`, `int or None`, the choices of a Literal."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        return f"{kind(parts[0])}s" if parts[-1] is Ellipsis else f"{len(parts)} {kind(parts[0])}s"
    if get_args(hint):
        return " or ".join(map(kind, get_args(hint)))
    return "None" if hint is type(None) else hint.__name__


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
