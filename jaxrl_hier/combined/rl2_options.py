"""RL² whose actions are options: a recurrent policy that chooses among courses of action learns to learn.

The hidden state learns a task as in RL² (`meta.rl2`), from every step. A decision is taken only where an episode begins
or the running option stops (Sutton, Precup & Singh, 1999), and credit is assigned to decisions. If the option chosen at
t runs for k steps, and the next is chosen at t + k,

    δ_t = Σ_{i<k} γ^i r_{t+i} + γ^k V(h_{t+k}) − V(h_t)
    A_t = δ_t + γ^k λ A_{t+k}

and the losses are those of RL², means over decisions. So exploration moves from hallway to hallway instead of from cell
to cell. Time limits, returns and lengths count steps of the environment, as without options. Options are tables over
the states that the environment shows: those of a set by name, or one's own (`make`).

Departures: neither paper combines the two. An option is never left before it stops, but for the end of an episode, and
which option runs is not among the observations, which show its actions. Where a rollout ends while an option runs, the
value there bootstraps, though no option is chosen in that state.
"""

from dataclasses import dataclass
from typing import Any, Literal

from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.engine.types import Algorithm, Tasks
from jaxrl_hier.hierarchical.options import option_set
from jaxrl_hier.meta import rl2

QUANTITIES = rl2.QUANTITIES


@dataclass(frozen=True)
class Config(rl2.Config):
    """Settings of RL² over options."""

    options: Literal["primitive", "hallway", "both"] = "both"
    """options to choose from: each action for one step, the hallway options of four rooms, or both"""


def make(config: Config, env: Any, tasks: Tasks, options: Options | None = None) -> Algorithm:
    """RL² over options, on an environment with Discrete observations and actions, which `make` plays in trials.

    Args:
        options: the options to choose from, in the place of those that `config.options` names.

    Raises:
        UsageError: a setting or an option that cannot work, or an environment without such spaces.
    """
    return rl2.make(config, env, tasks, option_set(config.options, options, env, tasks))
