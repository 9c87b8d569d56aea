"""Further outputs for the rows of metrics.jsonl: TensorBoard and Weights & Biases. A writer takes one seed's rows."""

import json
import os
import secrets
from pathlib import Path
from typing import Any, Protocol

from jaxrl_hier.checks import UsageError

NOT_MEASURED = ("iteration", "seed")  # they identify a row


class Writer(Protocol):
    """Takes rows as they are logged."""

    def write(self, row: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """<run>/tensorboard/seed<seed>; on resume, rows after the checkpoint are dropped."""

    def __init__(self, directory: Path, seed: int, iteration: int):
        from tensorboardX import SummaryWriter

        folder = directory / "tensorboard" / f"seed{seed}"
        self._writer = SummaryWriter(str(folder), purge_step=iteration + 1)

    def write(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name not in NOT_MEASURED:
                self._writer.add_scalar(name, value, row["iteration"])

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases for each seed, in a group named like the run folder; a row's step is its iteration.

    wandb's environment variables set project, account and mode: WANDB_PROJECT (default jaxrl_hier), WANDB_MODE=offline.
    Ids are kept in <run>/wandb.json, so that a resumed run continues the same one. Rows after the checkpoint are then
    written again with equal values, and Weights & Biases drops the duplicates.

    Raises:
        UsageError: the package is not installed, or it cannot start, for example without an account.
    """

    def __init__(self, directory: Path, seed: int, iteration: int):
        try:
            import wandb
        except ModuleNotFoundError:
            raise UsageError("wandb is not installed: pip install 'jaxrl-hier[wandb]'") from None
        about = json.loads((directory / "config.json").read_text()) if (directory / "config.json").is_file() else {}
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "jaxrl_hier"),
                group=directory.name,
                name=f"{directory.name}-seed{seed}",
                id=_id_of(directory, seed),
                resume="allow",
                reinit="create_new",  # keeps those of the other seeds open
                dir=str(directory),
                config={**about.get("identity", {}), **about.get("run", {}), "seed": seed},
            )
        except Exception as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(f"Weights & Biases cannot start: {text}; WANDB_MODE=offline needs no account") from error

    def write(self, row: dict[str, Any]) -> None:
        numbers = {name: value for name, value in row.items() if name not in NOT_MEASURED}
        self._run.log(numbers, step=row["iteration"])

    def close(self) -> None:
        self._run.finish()


def _id_of(directory: Path, seed: int) -> str:
    """The seed's id of Weights & Biases, kept in the run folder."""
    path = directory / "wandb.json"
    ids = json.loads(path.read_text()) if path.is_file() else {}
    if str(seed) not in ids:
        ids[str(seed)] = secrets.token_hex(6)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(ids) + "\n")
        partial.replace(path)
    return ids[str(seed)]
