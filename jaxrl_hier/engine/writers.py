"""Further outputs for the rows of metrics.jsonl: TensorBoard and Weights & Biases. A writer takes one seed's rows."""

import json
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from jaxrl_hier.checks import UsageError, writing_to
from jaxrl_hier.engine.files import replacing, sync

EVENTS = 10**6  # numbers in an event file, after which the next one begins
NOT_MEASURED = ("iteration", "seed")  # they identify a row


class Writer(Protocol):
    """Takes rows as they are logged."""

    def write(self, row: dict[str, Any]) -> None: ...

    def sync(self) -> None:
        """Wait until everything that was written is on the disk."""

    def close(self) -> None: ...


class TensorBoard:
    """<run>/tensorboard/seed<seed>; on resume, rows after the checkpoint are dropped.

    It writes where it is called: SummaryWriter's thread dies when the disk is full, and training then waits for it for
    ever. Raises UsageError if a file cannot be written.
    """

    def __init__(self, directory: Path, seed: int, iteration: int):
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._folder = directory / "tensorboard" / f"seed{seed}"
        with writing_to(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._begin_file(iteration)
            start = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(wall_time=time.time(), step=iteration + 1, session_log=start))
            self._events.flush()

    def write(self, row: dict[str, Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with writing_to(self._folder):
            if self._written > EVENTS:
                self._events.close()
                self._begin_file(row["iteration"])
            for name, value in row.items():
                if name not in NOT_MEASURED:
                    event = Event(wall_time=time.time(), step=row["iteration"], summary=scalar(name, value))
                    self._events.write_event(event)
                    self._written += 1
            self._events.flush()

    def _begin_file(self, iteration: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        # the iteration is in its name, since the rest of it is the second in which the file was made
        self._events, self._written = EventsWriter(str(self._folder / "events"), f".{iteration:012d}"), 0

    def sync(self) -> None:
        with writing_to(self._folder):
            sync(self._folder)

    def close(self) -> None:
        with suppress(OSError):  # rows are flushed as they come
            self._events.close()


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

    def sync(self) -> None:
        pass  # its own process writes and uploads

    def close(self) -> None:
        self._run.finish()


def _id_of(directory: Path, seed: int) -> str:
    """The seed's id of Weights & Biases, kept in the run folder."""
    path = directory / "wandb.json"
    ids = json.loads(path.read_text()) if path.is_file() else {}
    if str(seed) not in ids:
        ids[str(seed)] = secrets.token_hex(6)
        with replacing(path) as partial:
            partial.write_text(json.dumps(ids) + "\n")
    return ids[str(seed)]
