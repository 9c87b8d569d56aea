"""Stopping a run: on SIGTERM and SIGINT, by a file in its folder, or by a function of the user's.

The current chunk is finished and saved; a second signal ends the process at once.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxrl_hier.checks import UsageError, warn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONE_SIGNAL = 0.5  # seconds within which a signal that arrives twice, as from `timeout`, counts once
STOP = "stop"  # a file of this name in the run's folder stops the run


def require_function(stop: Any) -> None:
    """Raises UsageError for a `stop` that cannot be called."""
    if stop is not None and not callable(stop):
        raise UsageError(f"stop must be a function without arguments, got {stop!r}")


class Stopping:
    """Notices what asks the run to stop while it is entered. Outside of the main thread, no signal is noticed.

    Python calls a handler only between two of its own operations, and a compilation or a chunk is a single one. So a
    thread reads the signals as well, from the descriptor that Python writes them to, and answers without delay.

    Args:
        directory: the run's folder, in which a file `stop` may appear.
        asked: the user's own notice, such as that of a machine that is about to be taken away: True stops the run. It
            is called after every chunk.
    """

    def __init__(self, directory: Path | None = None, asked: Callable[[], bool] | None = None) -> None:
        self.signal: signal.Signals | None = None  # the first that came
        self.seconds: float | None = None  # how long the last chunk took
        self._file = directory / STOP if directory else None
        self._asked = asked
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            noticed = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]  # as under nohup
            if not noticed:
                return self
            self._earlier = {s: signal.signal(s, self._notice) for s in noticed}
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._earlier_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._answer, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._earlier:
            return
        signal.set_wakeup_fd(self._earlier_descriptor)
        for noticed, handler in self._earlier.items():
            signal.signal(noticed, signal.SIG_DFL if handler is None else handler)
        self._writer.close()
        self._thread.join()
        self._reader.close()
        if self.signal and error is None:  # it came too late to stop anything here
            signal.raise_signal(self.signal)

    def reason(self, chunk_over: bool = False) -> str | None:
        """What asks to stop, None if nothing does. The user's function is asked only where a chunk has just ended."""
        if self.signal is not None:
            return self.signal.name
        if self._file is not None and self._file.exists():
            return f"the file {self._file}"
        return "the function stop" if chunk_over and self._asked is not None and self._asked() else None

    def stop(self, message: str) -> None:
        """Say it, and raise KeyboardInterrupt for SIGINT, else SystemExit with the code of SIGTERM, 143. The file is
        removed, so that it does not stop the resumed run."""
        warn(message)
        if self._file is not None:
            with suppress(OSError):  # resuming removes it as well
                self._file.unlink()
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt(message)
        raise SystemExit(128 + signal.SIGTERM)

    def _notice(self, number: int, frame: Any) -> None:
        self.signal = self.signal or signal.Signals(number)

    def _answer(self) -> None:
        """Say that the first signal has come; end the process at the second."""
        first: float | None = None
        while numbers := self._reader.recv(64):
            for number in [n for n in numbers if n in self._earlier]:
                if first is None:
                    first = time.monotonic()
                    how_long = "" if self.seconds is None else f", about {self.seconds:.1f} s"
                    name = signal.Signals(number).name
                    warn(f"{name}: stopping after what is under way{how_long}; a second signal ends at once")
                elif time.monotonic() - first > ONE_SIGNAL:
                    os._exit(128 + number)
