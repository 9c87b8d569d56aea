"""What frequent evaluation costs: an evaluation of every preset beside ten of its iterations.

Compiled as `train` does, one seed, in turns; medians. `ratio` is the share of the time that is left for learning when a
run evaluates every ten iterations: 0.95 is a loss of 5 %. Left out are tabular learners and others whose iteration
takes microseconds, since an evaluation plays many more steps than ten of their iterations, and those of MAML's family
that are evaluated as MAML is. What `train` adds for each evaluation, such as writing a file, is in neither number.
"""

import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

import jaxrl_hier
from jaxrl_hier.engine.chunk import Evaluation

from ._over_devices import OverDevices
from ._timing import Setup

EVERY = 10
NAMES = ("maml", "rl2", "pearl", "ppo", "trpo", "fun", "hiro", "uvfa")


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    for name in setup.chosen(NAMES, smoke=("ppo",)):
        algorithm = jaxrl_hier.make(name)
        learner, evaluate = OverDevices(algorithm, 1, 1 if setup.smoke else EVERY), Evaluation(algorithm)
        learning, evaluating = [], []
        for _ in range(setup.rounds + 1):
            learning.append(seconds(learner.run))
            evaluating.append(seconds(partial(evaluate, learner.state)))
        of_learning, of_evaluating = (statistics.median(x[1:]) for x in (learning, evaluating))  # the first compiles
        yield {
            "what": f"{name}, an evaluation after every {EVERY} iterations",
            "unit": "seconds of both",
            "ours": of_learning + of_evaluating,
            "peer": f"{EVERY} iterations alone",
            "theirs": of_learning,
            "ratio": of_learning / (of_learning + of_evaluating),
            "aggregate": False,
            "note": f"medians of {setup.rounds}; an evaluation takes {of_evaluating:.3g} s",
        }


def seconds(f: Any) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(f())
    return time.perf_counter() - begun
