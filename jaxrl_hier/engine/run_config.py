"""How long, how often and where to: settings of a run, the same for every algorithm."""

from dataclasses import dataclass
from typing import Any

from jaxrl_hier.checks import UsageError, require_positive
from jaxrl_hier.relations import Relation, multiple, require
from jaxrl_hier.settings import BaseConfig, Seed


@dataclass(frozen=True)
class RunConfig(BaseConfig):
    """Settings of a run. An iteration is one call of an algorithm's `step`."""

    iterations: int = 100
    """iterations to train in all, including those before a resume"""
    seed: Seed = 0
    """the first seed, from 0 to 2⁶⁴ − 1"""
    seeds: int = 1
    """number of independent runs in one program, with the seeds seed, seed + 1, …"""
    log_every: int = 1
    """iterations per logged row, which holds their mean; they are compiled as one program"""
    checkpoint_every: int = 10
    """iterations between checkpoints, a multiple of log_every; the newest two are kept"""
    evaluate_every: int = 0
    """iterations between evaluations, a multiple of log_every; 0 evaluates only at the end"""
    devices: int = 1
    """number of devices that share the parallel environments or tasks"""
    tensorboard: bool = True
    """write TensorBoard files beside metrics.jsonl"""
    wandb: bool = False
    """log the same rows to Weights & Biases, a run for each seed (extra wandb; WANDB_PROJECT, WANDB_MODE=offline)"""
    plots: bool = True
    """draw curves and pictures at the end, into the run's folder"""
    quiet: bool = False
    """show no progress on the terminal"""

    def validate(self) -> None:
        """Raises UsageError for settings that do not fit each other."""
        require_positive(self, "iterations", "seeds", "log_every", "checkpoint_every", "devices")
        require_positive(self, "evaluate_every", "seed", or_zero=True)
        require(self, self.relations(None, None))
        if self.seed + self.seeds > 2**64:
            raise UsageError(f"seed + seeds must be at most 2⁶⁴, got {self.seed} + {self.seeds}")

    @staticmethod
    def relations(env: Any, tasks: Any) -> list[Relation]:
        """Relations between the settings, see `jaxrl_hier.relations`."""
        return [multiple(name, "log_every") for name in ("iterations", "checkpoint_every", "evaluate_every")]
