"""How long, how often and where to: settings of a run, the same for every algorithm."""

from dataclasses import dataclass
from typing import Any

from jaxrl_hier.checks import UsageError, require_choice, require_positive
from jaxrl_hier.relations import Relation, multiple, require
from jaxrl_hier.settings import BaseConfig, Seed

ON_NAN = ("stop", "skip", "drop-seed")


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
    """iterations between checkpoints, a multiple of log_every"""
    keep: int = 2
    """newest checkpoints that stay on the disk"""
    keep_best: str = ""
    """also keep the checkpoint of the best evaluation so far: the one with the highest mean of this measurement, such
    as return"""
    keep_lowest: bool = False
    """the best evaluation is that with the lowest mean instead, as of steps"""
    evaluate_every: int = 0
    """iterations between evaluations, a multiple of log_every; 0 evaluates only at the end"""
    devices: int = 1
    """number of devices that share the run: its seeds where their number is a multiple of that of devices, else the
    parallel environments or tasks"""
    on_nan: str = "stop"
    """what to do when a metric or parameter is not finite: stop; skip: leave out the iteration's update and count it;
    drop-seed: go on without the seed in which it happened"""
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
        require_positive(self, "iterations", "seeds", "log_every", "checkpoint_every", "keep", "devices")
        require_choice(self, "on_nan", ON_NAN)
        require_positive(self, "evaluate_every", "seed", or_zero=True)
        require(self, self.relations(None, None))
        if self.keep_best and not self.evaluate_every:
            raise UsageError("keep_best compares evaluations in the course of training: set evaluate_every")
        if self.keep_best == "steps" and not self.keep_lowest:
            raise UsageError("keep_best steps would keep the evaluation of most steps: set keep_lowest")
        if self.seed + self.seeds > 2**64:
            raise UsageError(f"seed + seeds must be at most 2⁶⁴, got {self.seed} + {self.seeds}")

    @staticmethod
    def relations(env: Any, tasks: Any) -> list[Relation]:
        """Relations between the settings, see `jaxrl_hier.relations`."""
        return [multiple(name, "log_every") for name in ("iterations", "checkpoint_every", "evaluate_every")]
