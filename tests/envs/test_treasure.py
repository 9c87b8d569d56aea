"""Keys, doors and a treasure: walks against a slow loop, the shortest way, and what is seen."""

import jax
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import KeyDoorTreasure, check_env
from jaxrl_envs.grids import DIRECTIONS
from jaxrl_envs.treasure import MAPS, fewest_steps

KEY = jax.random.key(0)
TINY = ("wwwwwww", "wKS D w", "wwwwwDw", "wK  DTw", "wwwwwww")


@pytest.mark.parametrize("name", ["treasure", "treasure-large", "treasure-vector", "treasure-large-vector"])
def test_conforms(name):
    check_env(*jaxrl_envs.make(name), episodes=1)


def slow_walk(rows, actions):
    """(row, col), keys taken, doors opened, reward and end after each action, from the letters alone."""
    letters = np.array([list(row) for row in rows])
    at = tuple(np.argwhere(letters == "S")[0])
    taken, opened, out = set(), set(), []
    for action in actions:
        ahead = (at[0] + DIRECTIONS[action][0], at[1] + DIRECTIONS[action][1])
        reward = 0
        if letters[ahead] == "D" and ahead not in opened:
            if len(taken) > len(opened):
                opened.add(ahead)
                reward += 1
            else:
                ahead = at
        if letters[ahead] == "w":
            ahead = at
        at = ahead
        if letters[at] == "K" and at not in taken:
            taken.add(at)
            reward += 1
        over = letters[at] == "T"
        out.append((at, set(taken), set(opened), reward + over, over))
        if over:
            break
    return out


@pytest.mark.parametrize("rows", [TINY, MAPS["small"]])
def test_walks_against_a_slow_loop(rows):
    env, rng = KeyDoorTreasure(rows), np.random.default_rng(0)
    params, step = env.default_params, jax.jit(env.step_env)
    places = lambda cells, which: {tuple(env.cells[c]) for c in np.asarray(cells)[np.asarray(which)]}
    seen = {"keys": 0, "doors": 0}
    for _ in range(8):
        actions = rng.integers(4, size=120)
        _, state = env.reset_env(KEY, params)
        for action, (at, taken, opened, reward, over) in zip(actions, slow_walk(rows, actions)):
            obs, state, paid, terminated, _ = step(KEY, state, action, params)
            assert tuple(env.cells[int(state.cell)]) == at
            assert places(env.keys, state.taken) == taken
            assert places(env.doors, state.opened) == opened
            assert float(paid) == reward
            assert bool(terminated) == over
            obs = np.asarray(obs)
            assert obs[..., 4].sum() == obs[(*at, 4)] == 1
            assert {tuple(x) for x in np.argwhere(obs[..., 2])} == places(env.keys, ~np.asarray(state.taken))
            assert {tuple(x) for x in np.argwhere(obs[..., 1])} == places(env.doors, ~np.asarray(state.opened))
            assert places(env.keys, state.taken).isdisjoint({tuple(x) for x in np.argwhere(obs[..., 0])})
        seen["keys"] += int(np.sum(state.taken))
        seen["doors"] += int(np.sum(state.opened))
    if rows is TINY:
        assert min(seen.values()) > 0


def test_the_whole_way_pays_every_letter():
    """One key opens one door: of the tiny map both keys are needed, and the first lies beside the start."""
    env = KeyDoorTreasure(TINY)
    left, right, up, down = 2, 3, 0, 1
    way = [left, right, right, right, right, down]
    _, state = env.reset_env(KEY, env.default_params)
    total = 0.0
    for action in way:
        _, state, reward, terminated, _ = env.step_env(KEY, state, action, env.default_params)
        total += float(reward)
    assert not terminated
    assert total == 2  # a key and a door; the second door stays shut
    assert tuple(env.cells[int(state.cell)]) == (1, 5)
    assert up == 0
    with pytest.raises(ValueError, match="cannot be reached"):
        fewest_steps(env)


def test_fewest_steps():
    assert fewest_steps(KeyDoorTreasure(("wwwwww", "wS  Tw", "wwwwww"))) == 3
    assert fewest_steps(KeyDoorTreasure(("wwwwwwww", "wK SDT w", "wwwwwwww"))) == 2 + 4
    small, large = KeyDoorTreasure("small"), KeyDoorTreasure("large")
    assert (fewest_steps(small), fewest_steps(large)) == (36, 34)
    assert (small.best_return, large.best_return) == (3, 5)


def test_vector():
    env = KeyDoorTreasure(TINY, "vector")
    obs, state = env.reset_env(KEY, env.default_params)
    assert obs.shape == (len(env.cells) + 2 + 3,)
    assert obs[int(env.start)] == 1
    assert float(obs.sum()) == 1
    obs, *_ = env.step_env(KEY, state, 2, env.default_params)
    assert float(obs[len(env.cells)]) == 1
    assert float(obs.sum()) == 2


def test_render_shows_who_is_where():
    env = KeyDoorTreasure("small")
    _, state = env.reset_env(KEY, env.default_params)
    before = env.render(state, env.default_params, size=330)
    after = env.render(state.replace(taken=~state.taken), env.default_params, size=330)
    square = lambda picture, r, c: picture[30 * r : 30 * (r + 1), 30 * c : 30 * (c + 1)].reshape(-1, 3).astype(int)
    assert before.shape == (330, 330, 3)
    assert np.any(square(before, 2, 2)[:, 2] - square(before, 2, 2)[:, 0] > 100)  # the agent, blue
    assert square(before, 0, 0).max() < 100  # a wall
    assert np.abs(square(before, 9, 9) - square(after, 9, 9)).max() > 50  # the key that was taken


@pytest.mark.parametrize(
    ("map", "message"),
    [
        ("huge", "map is one of small, large or rows of letters"),
        (("www", "wSw", "www"), "one start S and one treasure T"),
        (("www", "wSw", "wTw"), "walls all around"),
        (("wwww", "wSXw", "wwww"), "letters w, S, K, D, T"),
    ],
)
def test_bad_maps(map, message):
    with pytest.raises(ValueError, match=message):
        KeyDoorTreasure(map)
    with pytest.raises(ValueError, match="observation is 'picture' or 'vector'"):
        KeyDoorTreasure("small", "sound")
