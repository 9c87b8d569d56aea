"""Plays an exported policy with jax and NumPy alone. `jaxrl_hier` writes this file beside what it exports.

    from play import Policy

    policy = Policy("path/to/the/folder")
    action = policy.act(obs)                      # an episode's first observation on a new task
    action = policy.act(obs, reward, done)        # reward and done are of the step that led to obs

Files: policy.json describes the others; parameters.npz holds the learned parameters by name; new_task.bin, act.bin and,
for an agent that learns, finish.bin are programs for `jax.export`, which needs the package flatbuffers. Programs take
lists of arrays: the parameters in the order of policy.json, then the memory of the task, then the agent, whose arrays
"agent" in policy.json describes.
"""

import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np


class Policy:
    """An agent on a task. `key` seeds its random numbers: a whole number, or the words of a JAX key, uint32."""

    def __init__(self, folder: str | Path | None = None, key: Any = 0):
        self.folder = Path(__file__).parent if folder is None else Path(folder)
        self.about = json.loads((self.folder / "policy.json").read_text())
        with np.load(self.folder / "parameters.npz", allow_pickle=False) as arrays:
            self.params = [jax.numpy.asarray(arrays[leaf["name"]]) for leaf in self.about["parameters"]]
        self._ended = False
        self._new_task, self._act = self._program("new_task"), self._program("act")
        self._finish = self._program("finish") if self.about["learns"] else None
        self.memory, self.agent = self._new_task(self.params, words_of(key))

    def _program(self, name: str) -> Any:
        program = jax.export.deserialize(bytearray((self.folder / f"{name}.bin").read_bytes()))
        on_cpu = jax.default_backend() == "cpu"
        return jax.jit(program.call, compiler_options=self.about["compiler_options"] if on_cpu else None)

    def act(self, obs: Any, reward: float = 0.0, done: bool = False, final_obs: Any = None) -> Any:
        """The action for `obs`, an array or a dict of arrays."""
        reward_done = np.array([reward], np.float32), np.array([bool(done) or self._ended])
        self._ended = False
        if self._finish is not None and reward_done[1].any():
            final = [self._observed(obs if final_obs is None else final_obs)] if self.about["final_obs"] else []
            self.memory, self.agent = self._finish(self.params, self.memory, self.agent, *reward_done, *final)
        action, self.agent = self._act(self.params, self.memory, self.agent, self._observed(obs), *reward_done)
        action, start = np.asarray(action)[0], self.about["action"].get("start", 0)
        return action + action.dtype.type(start) if start else action

    def reset(self) -> None:
        """The next observation is the first of an episode on the same task."""
        self._ended = True

    def new_task(self, key: Any = None) -> None:
        """The next observation is the first on a new task. Without a key, the random numbers go on."""
        self.memory, self.agent = self._new_task(self.params, self._key_words() if key is None else words_of(key))
        self._ended = False

    def _key_words(self) -> np.ndarray:
        """The words of the agent's key, [1, words], which policy.json says where to find."""
        before, fields = 0, [field for field in self.about["agent"] if field["small"]]
        for field in fields:
            size = math.prod(field["shape"])
            if field["name"] == "key":
                break
            before += size
        return np.asarray(self.agent[0])[:, before : before + size]

    def _observed(self, obs: Any) -> list[Any]:
        parts = self.about["observation"]
        found = [obs[part["name"]] if part["name"] else obs for part in parts]
        arrays = [np.asarray(x).astype(part["dtype"])[None] for x, part in zip(found, parts)]
        # programs count the elements of a Discrete space from 0
        return [x - x.dtype.type(part["start"]) if part.get("start") else x for x, part in zip(arrays, parts)]


def words_of(key: Any) -> np.ndarray:
    """The words of a key, [1, words] uint32. A number has the key that a run with this seed has."""
    if not isinstance(key, int | np.integer):
        return np.asarray(key, np.uint32)[None]
    lower, upper = int(key) % 2**32, (int(key) >> 32) % 2**32
    made = jax.random.key(np.uint32(lower))
    return np.asarray(jax.random.key_data(jax.random.fold_in(made, np.uint32(upper)) if upper else made))[None]
