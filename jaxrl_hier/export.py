"""Exports a policy as files that need jax but not this package: arrays, a description, and programs."""

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from gymnax.environments import spaces

from jaxrl_envs.contract import is_key
from jaxrl_hier import exported_policy
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.compilation import LEVEL
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.types import Algorithm, Params, Tasks
from jaxrl_hier.policy import Agents, Programs, start_of

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "tpu")


@with_own_numerics
def export(
    folder: Path, algorithm: Algorithm, params: Params, env: Any, tasks: Tasks, *, greedy: bool, about: dict[str, Any]
) -> list[Path]:
    """Write a policy; `exported_policy` describes the files and plays them.

    Args:
        params: learned parameters of one seed.
        about: further entries of policy.json.

    Returns:
        The paths written.

    Raises:
        UsageError: observations that are neither arrays nor a dict of arrays, or a folder that cannot be written.
    """
    programs = Programs(algorithm, params, env, tasks, greedy)
    named, structure = _named(params)
    parts = _parts(env.observation_space(env.default_params))
    together = lambda x: dict(zip([part["name"] for part in parts], x)) if parts[0]["name"] else x[0]

    memory_structure: list[Any] = []  # its one item is the memory's pytree structure, known once `new_task` is traced

    def new_task(params: list[Any], words: Any) -> tuple[list[Any], list[Any]]:
        memory, (small, large) = programs.new_task(structure.unflatten(params), words)
        leaves, of_memory = jax.tree.flatten(memory)
        memory_structure[:] = [of_memory]
        return leaves, [small, *large]

    def finish(params: list[Any], memory: list[Any], agent: list[Any], reward: Any, done: Any, *final: Any) -> Any:
        known = structure.unflatten(params), memory_structure[0].unflatten(memory)
        seen = reward, done, *map(together, final)
        learned, (small, large) = programs.finish(known, Agents(agent[0], agent[1:]), *seen)
        return jax.tree.leaves(learned), [small, *large]

    def act(params: list[Any], memory: list[Any], agent: list[Any], obs: list[Any], reward: Any, done: Any) -> Any:
        known = structure.unflatten(params), memory_structure[0].unflatten(memory)
        action, (small, large) = programs.act(known, Agents(agent[0], agent[1:]), together(obs), reward, done)
        return action, [small, *large]

    assert algorithm.player is not None
    array = lambda shape, dtype: jax.ShapeDtypeStruct((1, *shape), dtype)
    leaves, words = list(named.values()), array(jax.random.key_data(jax.random.key(0)).shape, np.uint32)
    obs = [array(part["shape"], part["dtype"]) for part in parts]
    memory, agent = jax.eval_shape(new_task, leaves, words)
    reward_done = array((), np.float32), array((), np.bool_)
    learns, final = algorithm.player.learn is not None, [obs] * algorithm.player.final_obs
    files = ["policy.json", "parameters.npz", "new_task.bin", "act.bin", "play.py"]
    of = lambda f, *shapes: jax.export.export(jax.jit(f), platforms=PLATFORMS)(*shapes).serialize()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "new_task.bin").write_bytes(of(new_task, leaves, words))
        (folder / "act.bin").write_bytes(of(act, leaves, memory, agent, obs, *reward_done))
        if learns:
            (folder / "finish.bin").write_bytes(of(finish, leaves, memory, agent, *reward_done, *final))
            files.append("finish.bin")
        arrays: Any = {name: np.asarray(x) for name, x in named.items()}
        np.savez(folder / "parameters.npz", **arrays)
        shutil.copyfile(exported_policy.__file__, folder / "play.py")
        description = about | {
            "format": FORMAT,
            "greedy": greedy,
            "learns": learns,
            "final_obs": algorithm.player.final_obs,
            "observation": parts,
            "action": _described(env.action_space(env.default_params)),
            "parameters": [{"name": k, "shape": list(x.shape), "dtype": str(x.dtype)} for k, x in named.items()],
            "agent": _layout(programs),
            "compiler_options": {"xla_backend_optimization_level": LEVEL},
            "platforms": list(PLATFORMS),
            "versions": {name: _version(name) for name in ("jaxrl-hier", "jax", "jaxlib", "numpy")},
        }
        (folder / "policy.json").write_text(json.dumps(description, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from error
    return [folder / name for name in files]


def _named(params: Params) -> tuple[dict[str, Any], Any]:
    """The arrays of a pytree by their paths, and its structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".") or "params"
    named = {name(path): jax.numpy.asarray(x) for path, x in leaves}
    if any(map(is_key, named.values())):
        raise UsageError("parameters with keys of JAX cannot be exported: store jax.random.key_data of them")
    return named, structure


def _parts(space: Any) -> list[dict[str, Any]]:
    """The arrays of an observation, as policy.json describes them."""
    if isinstance(space, spaces.Dict):
        return [_described(part) | {"name": name} for name, part in space.spaces.items()]
    if not hasattr(space, "shape") or not hasattr(space, "dtype"):
        raise UsageError(f"observations must be arrays or a dict of arrays to be exported, not of {space!r}")
    return [_described(space) | {"name": ""}]


def _described(space: Any) -> dict[str, Any]:
    dtype = str(jax.dtypes.canonicalize_dtype(space.dtype))
    found = {"kind": type(space).__name__, "shape": list(space.shape), "dtype": dtype}
    if isinstance(space, spaces.Discrete):
        return found | {"n": int(space.n), "start": start_of(space)}
    if isinstance(space, spaces.Box):
        ends = {"low": space.low, "high": space.high}  # infinity as text: JSON has no number for it
        plain = lambda x: x if np.isfinite(x) else str(x)
        return found | {
            k: [plain(float(x)) for x in np.ravel(np.broadcast_to(v, space.shape))] for k, v in ends.items()
        }
    return found


def _layout(programs: Programs) -> list[dict[str, Any]]:
    """The contents of an agent's arrays, in order: a field with "small" takes the next 32-bit words of the first array,
    one without takes the next of the other arrays."""
    entry = lambda field: {"name": field.name, "shape": list(field.shape), "dtype": field.dtype, "small": field.small}
    return [entry(field) | ({"key": str(field.key)} if field.key else {}) for field in programs.layout]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
