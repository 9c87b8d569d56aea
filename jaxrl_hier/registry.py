"""Algorithms by name: an explicit table, filled by hand, its modules imported on use."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from jaxrl_hier.checks import unknown


@dataclass(frozen=True)
class Entry:
    """Where an algorithm is, and its preset."""

    # has `Config` and `make(config, env, tasks)`. May have `published(config, env_name)`, values to compare with, and
    # `pictures(config, env, state, folder) -> paths`, what to draw of the learned `state` of one seed beside the rest
    module: str
    env: str  # the environment of its preset
    summary: str
    run: dict[str, Any] = field(default_factory=dict)  # what differs from RunConfig's defaults


TABULAR = {"iterations": 200_000, "log_every": 2_000, "checkpoint_every": 20_000, "evaluate_every": 20_000}

ALGORITHMS: dict[str, Entry] = {
    "q-learning": Entry(
        "jaxrl_hier.flat.q_learning",
        env="four-rooms",
        summary="tabular Q-learning (Watkins, 1989)",
        run=TABULAR,
    ),
    "smdp-q": Entry(
        "jaxrl_hier.hierarchical.smdp_q",
        env="four-rooms",
        summary="Q-learning over options, updated when an option ends (Sutton, Precup & Singh, 1999)",
        run=TABULAR,
    ),
    "intra-option-q": Entry(
        "jaxrl_hier.hierarchical.intra_option_q",
        env="four-rooms",
        summary="learns about every consistent option from every step (Sutton, Precup & Singh, 1999)",
        run=TABULAR,
    ),
    "option-critic": Entry(
        "jaxrl_hier.hierarchical.option_critic",
        env="four-rooms-option-critic",
        summary="learns options with a network, as an advantage actor-critic (Bacon, Harb & Precup, 2017)",
        run={"iterations": 2_000, "log_every": 20, "checkpoint_every": 200, "evaluate_every": 500},
    ),
    "option-critic-tabular": Entry(
        "jaxrl_hier.hierarchical.option_critic_tabular",
        env="four-rooms-moving-goal",
        summary="learns policies and terminations of options, in tables (Bacon, Harb & Precup, 2017)",
        run=TABULAR,
    ),
    "maxq": Entry(
        "jaxrl_hier.hierarchical.maxq",
        env="taxi",
        summary="learns the value function of every subtask of a task graph (Dietterich, 2000)",
        run={"iterations": 1_000, "log_every": 10, "checkpoint_every": 100, "evaluate_every": 100},
    ),
    "sarsa": Entry(
        "jaxrl_hier.flat.sarsa",
        env="four-rooms-moving-goal",
        summary="tabular SARSA(0) with a Boltzmann policy (Rummery & Niranjan, 1994)",
        run=TABULAR,
    ),
    "maml": Entry(
        "jaxrl_hier.meta.maml",
        env="navigation2d",
        summary="an initialisation that adapts in a few gradient steps (Finn et al., 2017); FOMAML by --first-order",
        run={"iterations": 100, "checkpoint_every": 10, "evaluate_every": 25},
    ),
}


def entry(name: str) -> Entry:
    """Raises UsageError, with the nearest names, when nothing is called `name`."""
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def module(name: str) -> Any:
    """The module of an algorithm."""
    return import_module(entry(name).module)
