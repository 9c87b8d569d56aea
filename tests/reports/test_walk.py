"""The animation of a walk: as many frames as steps, the map of each step in it, and an error for missing names."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL.GifImagePlugin import GifImageFile

from jaxrl_envs.four_rooms import NUM_CELLS, FourRooms, cell_index
from jaxrl_hier.exact import smdp
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS, hallway_options
from jaxrl_hier.pictures.walk import policy_over_options_gif


@pytest.fixture(scope="module")
def walk():
    """Four rooms with the hallway options and their best values for the north hallway, from near by."""
    env = FourRooms()
    params = env.default_params.replace(goal=cell_index(3, 6), start=cell_index(3, 4))
    options = hallway_options(env)
    q = smdp.smdp_optimal_values(smdp.option_models(*env.model(params), options, 0.9), options.initiation)
    return env, params, options, q


def test_frames(walk, tmp_path):
    path = tmp_path / "new folder" / "walk.gif"
    env, params, options, q = walk
    key = jax.random.key(0)
    steps = policy_over_options_gif(path, env, params, options, q, HALLWAY_OPTIONS, key, max_steps=60, size=130)
    with GifImageFile(path) as gif:
        assert gif.n_frames == steps + 1
        assert gif.size == (130, 143)
        durations, frames = [], []
        for i in range(gif.n_frames):
            gif.seek(i)
            durations.append(gif.info["duration"])
            frames.append(np.asarray(gif.convert("RGB")))
    assert 2 <= steps < 60  # two cells away, and it got there
    assert durations[0] == 440  # the option begins
    assert durations[-1] == 1760
    assert all(np.any(a != b) for a, b in pairwise(frames))
    # plain colours are kept as they are: the page, the walls, what the agent and the rings are drawn with
    for color in ((255, 255, 255), (84, 84, 84), (31, 119, 180), (214, 39, 40)):
        assert np.any(np.all(frames[0] == color, axis=2)), color


def test_unfinished_walk(walk, tmp_path):
    env, params, options, _ = walk
    away = jnp.zeros((NUM_CELLS, len(HALLWAY_OPTIONS))).at[:, HALLWAY_OPTIONS.index("NW to W")].set(1.0)
    path = tmp_path / "walk.gif"
    steps = policy_over_options_gif(path, env, params, options, away, HALLWAY_OPTIONS, jax.random.key(1), max_steps=1)
    assert steps == 1
    with GifImageFile(path) as gif:
        assert gif.n_frames == 2


def test_one_name_per_option(walk, tmp_path):
    env, params, options, q = walk
    with pytest.raises(ValueError, match="names must name all 8 options, got 7"):
        policy_over_options_gif(tmp_path / "walk.gif", env, params, options, q, HALLWAY_OPTIONS[:7], jax.random.key(0))
