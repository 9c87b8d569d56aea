"""Learners that all devices of a process share, for measurements that start a process for each number of devices."""

from typing import Any

import jax

from jaxrl_hier.engine.chunk import initial
from jaxrl_hier.engine.sharding import device_mesh, layout
from jaxrl_hier.engine.train import Compiled, RunConfig
from jaxrl_hier.engine.types import Algorithm


class OverDevices:
    """Iterations of an algorithm for seeds that all devices of this process share, as `train` carries them out."""

    def __init__(self, algorithm: Algorithm, seeds: int, iterations: int):
        self.algorithm, self.seeds = algorithm, seeds
        self.trainer = Compiled(algorithm)
        self.state = self.begin(0)
        self.trainer.compile(self.state, iterations)

    def begin(self, seed: int) -> Any:
        """The initial states of the seeds from this one on."""
        run = RunConfig(seeds=self.seeds, seed=seed, devices=jax.device_count())
        shapes, make = initial(self.algorithm, run)
        return make(layout(shapes, device_mesh(run.devices)))

    def run(self) -> dict[str, Any]:
        """The metrics of the iterations, axes [iterations, seeds]."""
        self.state, metrics, _ = jax.block_until_ready(self.trainer.run(self.state))
        return metrics
