"""Stopping on SIGTERM and SIGINT: what is under way is finished and saved; a second signal ends the process at once."""

import os
import signal
import socket
import threading
import time
from types import TracebackType
from typing import Any

from jaxrl_hier.checks import warn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONE_SIGNAL = 0.5  # seconds within which a signal that arrives twice, as from `timeout`, counts once


class Stopping:
    """Notices the signals while it is entered. Outside of the main thread, nothing is noticed.

    Python calls a handler only between two of its own operations, which a compilation or a chunk may be far apart. So a
    thread reads the signals as well, from the descriptor that Python writes them to, and answers without delay.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None  # the first that came
        self.seconds: float | None = None  # how long the last chunk took
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

    def stop(self, message: str) -> None:
        """Say it, and raise KeyboardInterrupt for SIGINT, SystemExit with code 143 for SIGTERM."""
        warn(message)
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
