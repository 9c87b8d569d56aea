"""pytest in forks of a process that has imported the packages that all tests need, which takes as long as a test.

Runs in a copy of the checkout and imports nothing of it. Reads lines of JSON, {"arguments": those of pytest, "limit":
seconds or null}. Answers each with a line, {"code": pytest's exit code, null past the limit, "output": text}.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import time
from typing import Any

PACKAGES = ("jax", "flax.linen", "optax", "scipy.stats", "matplotlib.pyplot", "pytest")  # none starts threads


def import_heavy_packages() -> None:
    """Raises RuntimeError when that starts threads, which a fork would lose."""
    for name in PACKAGES:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("the packages that tests import start threads; pytest cannot be forked after them")


def run_forked(arguments: list[str], limit: float | None) -> dict[str, Any]:
    """The answer to one line."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            os.setsid()
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
            run_and_exit(arguments)
        code = wait(child, limit)
        output.seek(0)
        return {"code": code, "output": output.read()}


def run_and_exit(arguments: list[str]) -> None:
    code = 3  # pytest's own for an internal error
    try:
        import pytest

        code = int(pytest.main(arguments))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int, limit: float | None) -> int | None:
    """The exit code of `child`; None when it was ended after `limit` seconds, with all that it had started."""
    begun = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if limit is not None and time.monotonic() - begun > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.05)


def main() -> None:
    import_heavy_packages()
    for line in sys.stdin:
        print(json.dumps(run_forked(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
