"""Families of grid worlds: the contract, the model against steps, maps that are what they say, held-out members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env, four_rooms
from jaxrl_envs.grid_family import START, GridFamily, GridState, grid_family_tasks, hallways, icy_rooms, mazes
from jaxrl_hier.exact.tabular import minimal_expected_steps
from tests.close import assert_close

NAMES = ("four-rooms-hallways", "four-rooms-icy", "grid-mazes")


@pytest.mark.parametrize("name", NAMES)
def test_conforms(name):
    check_env(*jaxrl_envs.make(name), episodes=2)


def small() -> GridFamily:
    """Two members of 2 × 3 cells: the second has a wall in the middle below, the first ice at its start."""
    free = np.ones((2, 2, 3), bool)
    free[1, 1, 1] = False
    grip = np.ones((2, 2, 3))
    grip[0, 0, 0] = 0.25
    return GridFamily(free, grip, start=(0, 0), goal=(1, 2), limit=9)


def test_the_model_is_what_the_steps_do():
    """Moves by hand, and the probabilities of the model against the share of many steps."""
    env = small()
    up, down, left, right = range(4)
    first = [[0, 3, 0, 1], [1, 4, 0, 2], [2, 5, 1, 2], [0, 3, 3, 4], [1, 4, 3, 5], [2, 5, 4, 5]]
    second = [[0, 3, 0, 1], [1, 1, 0, 2], [2, 5, 1, 2], [0, 3, 3, 3], None, [2, 5, 5, 5]]
    for member, expected in enumerate((first, second)):
        for cell in (c for c in range(6) if expected[c] is not None):
            assert env.moves[member, cell].tolist() == expected[cell]
    task = env.default_params
    P, R = env.model(task)
    keys = jax.random.split(jax.random.key(0), 4000)
    step = jax.jit(
        jax.vmap(lambda key, action: env.step_env(key, GridState(cell=jnp.int32(0), time=0), action, task), (0, None))
    )
    for action in (up, down, left, right):
        _, after, reward, terminated, _ = step(keys, action)
        share = np.bincount(after.cell, minlength=6) / len(keys)
        np.testing.assert_allclose(share, P[0, action], atol=0.03)  # standard deviation .007
        assert not reward.any()
        assert not terminated.any()
    assert_close(np.asarray(P[0, right]), [0.75, 0.25, 0, 0, 0, 0])
    _, after, reward, terminated, _ = env.step_env(keys[0], GridState(cell=jnp.int32(4), time=0), right, task)
    assert (int(after.cell), float(reward), bool(terminated)) == (env.goal, 1.0, True)
    assert_close(np.asarray(R), np.where(np.indices((6, 4))[0] == env.goal, 0, np.asarray(P[:, :, env.goal])))
    assert_close(np.asarray(P[env.goal]), np.tile(np.arange(6) == env.goal, (4, 1)))


@pytest.mark.parametrize(("make", "count"), [(hallways, 500), (icy_rooms, 500), (mazes, 500)])
def test_the_goal_can_be_reached_in_every_member(make, count):
    env = make()
    members = jax.vmap(lambda member: env.default_params.replace(member=member))(jnp.arange(count))
    steps = jax.jit(jax.vmap(lambda task: minimal_expected_steps(env.model(task)[0])[env.start]))(members)
    assert len(env.free) == count
    assert (steps >= abs(env.cells[env.start] - env.cells[env.goal]).sum() - 1e-3).all()
    assert np.isfinite(steps).all()


def test_maps_are_what_they_say():
    free = hallways().free
    assert len(np.unique(free.reshape(500, -1), axis=0)) == 500
    assert (free.sum(axis=(1, 2)) == four_rooms.NUM_CELLS).all()  # one hallway in each of four walls
    assert any((free == four_rooms.FREE).all(axis=(1, 2)))  # and the paper's are among them
    icy = icy_rooms(share=0.3)
    assert (icy.free == four_rooms.FREE).all()
    assert (icy.cells == four_rooms.CELLS).all()
    assert np.mean(icy.grip < 1) == pytest.approx(0.3 * 102 / 104, abs=0.01)  # standard deviation .002
    assert (icy.grip[:, [icy.start, icy.goal]] == 1).all()
    assert tuple(icy.cells[icy.start]) == START
    assert (mazes(3, 10).free.sum(axis=(1, 2)) == 9 + 8).all()  # a tree over nine cells


def test_some_members_are_held_out():
    env = small()
    with pytest.raises(ValueError, match="every and repeat must be at least 2 and 1, and every at most the 2 members"):
        grid_family_tasks(env)
    tasks = grid_family_tasks(hallways(), repeat=2)
    drawn = np.unique(jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 8000)).member)
    test = np.asarray(tasks.test.member)
    assert len(drawn) == 400
    assert not set(drawn) & set(test.tolist())
    assert len(test) == 200
    assert len(np.unique(test)) == 100
    np.testing.assert_array_equal(np.sort(tasks.train.member), drawn)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"free": np.ones((2, 3), bool)}, "free must be"),
        ({"grip": np.ones((1, 2, 3))}, "grip must have the shape of free"),
        ({"grip": np.zeros((2, 2, 3))}, r"grip must lie in \(0, 1\]"),
        ({"goal": (1, 1)}, r"the goal \(1, 1\) must be a free cell in all of the 2 members"),
        ({"start": (2, 0)}, r"the start \(2, 0\) must be a free cell"),
        ({"goal": (0, 0)}, "start and goal must differ"),
    ],
)
def test_what_cannot_work_is_said(change, message):
    free = np.ones((2, 2, 3), bool)
    free[1, 1, 1] = False
    settings = {"free": free, "start": (0, 0), "goal": (1, 2)} | change
    with pytest.raises(ValueError, match=message):
        GridFamily(settings.pop("free"), settings.pop("grip", None), **settings)
