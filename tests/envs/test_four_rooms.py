"""FourRooms against its specification: the map, both dynamics, the exact model, tasks and pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.patches import Circle
from matplotlib.quiver import Quiver

from jaxrl_envs import check_env
from jaxrl_envs import four_rooms as fr
from jaxrl_envs.four_rooms import FourRooms, cell_coordinates, cell_index, four_rooms_tasks, moving_goal_tasks
from tests.close import assert_close

UP, DOWN, LEFT, RIGHT = range(4)


@pytest.fixture(scope="module")
def envs():
    return {dynamics: FourRooms(dynamics) for dynamics in ("sutton", "option-critic")}


# The map


def test_map():
    assert fr.NUM_CELLS == 104
    assert cell_index(*fr.G1) == 62  # the number in the option-critic code
    assert [cell_index(*cell_coordinates(cell)) for cell in range(104)] == list(range(104))
    assert [int(fr.room_cells(room).sum()) for room in ("NW", "NE", "SE", "SW")] == [25, 30, 20, 25]
    rooms = np.sum([fr.room_cells(room) for room in fr.ROOMS], axis=0)
    assert sorted(fr.CELLS[rooms == 0].tolist()) == sorted(map(list, fr.HALLWAYS.values()))
    south = cell_index(*fr.HALLWAYS["S"])
    assert len(fr.POSSIBLE_NEXT_GOALS) == 21
    assert set(fr.POSSIBLE_NEXT_GOALS) == {*np.flatnonzero(fr.room_cells("SE")), south}


@pytest.mark.parametrize("cell", [(0, 0), (6, 3), (13, 1), (-1, 1)])
def test_a_wall_has_no_number(cell):
    with pytest.raises(ValueError, match=r"is no free cell"):
        cell_index(*cell)


def test_number_out_of_range():
    with pytest.raises(ValueError, match=r"cell 104 does not exist; free cells have the numbers 0\.\.103"):
        cell_coordinates(104)


# Dynamics


def moves(env, cell, action):
    """{(row, col): probability} of one transition of the goal-free model."""
    row = env.transitions[cell_index(*cell), action]
    return {cell_coordinates(s): pytest.approx(row[s]) for s in np.flatnonzero(row)}


def test_sutton_dynamics_by_hand(envs):
    env = envs["sutton"]
    assert moves(env, (2, 2), RIGHT) == {(2, 3): 2 / 3, (1, 2): 1 / 9, (3, 2): 1 / 9, (2, 1): 1 / 9}
    assert moves(env, (1, 1), UP) == {(1, 1): 2 / 3 + 1 / 9, (2, 1): 1 / 9, (1, 2): 1 / 9}
    assert moves(env, (7, 9), DOWN) == {(8, 9): 2 / 3, (6, 9): 1 / 9, (7, 9): 2 / 9}


def test_option_critic_dynamics_by_hand(envs):
    env = envs["option-critic"]
    # the second move starts from the cell entered, and may lead back
    assert moves(env, (2, 2), RIGHT) == {(2, 3): 2 / 3, (1, 3): 1 / 12, (3, 3): 1 / 12, (2, 4): 1 / 12, (2, 2): 1 / 12}
    assert moves(env, (3, 5), RIGHT) == {(3, 6): 2 / 3, (3, 5): 1 / 6, (3, 7): 1 / 6}
    assert moves(env, (1, 3), DOWN) == {(2, 3): 2 / 3, (1, 3): 1 / 12, (3, 3): 1 / 12, (2, 2): 1 / 12, (2, 4): 1 / 12}
    assert moves(env, (2, 1), UP) == {(1, 1): 2 / 3, (2, 1): 1 / 6, (1, 2): 1 / 6}
    assert moves(env, (1, 1), UP) == {(1, 1): 1.0}  # bumping into a wall has no noise


@pytest.mark.parametrize("dynamics", ["sutton", "option-critic"])
def test_step_follows_the_model(envs, dynamics):
    env, draws = envs[dynamics], 5000
    params = env.default_params.replace(goal=cell_index(*fr.G1))
    P, R = map(np.asarray, env.model(params))

    @jax.jit
    def counts(key):  # of successors [S * A, S'], rewards and terminations [S * A]
        def one(key, cell, action):
            state = fr.FourRoomsState(cell=cell, time=jnp.int32(0))
            _, state, reward, terminated, _ = env.step_env(key, state, action, params)
            return state.cell, reward, terminated

        def pair(index):
            keys = jax.random.split(jax.random.fold_in(key, index), draws)
            cells, reward, terminated = jax.vmap(one, (0, None, None))(keys, index // 4, index % 4)
            return jnp.zeros(104, jnp.int32).at[cells].add(1), reward.sum(), terminated.sum()

        return jax.lax.map(pair, jnp.arange(416), batch_size=32)

    seen, reward, terminated = (np.asarray(x) for x in counts(jax.random.key(0)))
    seen = seen.reshape(104, 4, 104) / draws
    free = np.arange(104) != int(params.goal)
    assert (seen[free][P[free] == 0] == 0).all()
    open_ = free[:, None, None] & (P > 0) & (P < 1)
    z = (seen - P)[open_] / np.sqrt(P * (1 - P) / draws)[open_]
    assert np.abs(z).max() < 5  # of some 1 500 frequencies
    assert abs(np.mean(z**2) - 1) < 0.15
    assert_close(reward.reshape(104, 4)[free] / draws, seen[free][..., params.goal])
    np.testing.assert_array_equal(terminated, reward)
    assert_close(R, P[..., params.goal] * free[:, None])


def test_keys_of_consecutive_seeds_serve_too(envs):
    env, count = envs["sutton"], 9000
    keys = jax.vmap(jax.random.key)(jnp.arange(count))
    state = fr.FourRoomsState(cell=cell_index(2, 2), time=np.int32(0))
    cells = jax.jit(jax.vmap(lambda key: env.step_env(key, state, RIGHT, env.default_params)[1].cell))(keys)
    for successor, expected in moves(env, (2, 2), RIGHT).items():
        p = expected.expected
        assert abs(np.mean(cells == cell_index(*successor)) - p) < 4 * np.sqrt(p * (1 - p) / count)


@pytest.mark.parametrize("goal", [fr.NONE, 0, 50, 103])
def test_uniform_start(envs, goal):
    env, count = envs["option-critic"], 50_000
    params = env.default_params.replace(goal=np.int32(goal))
    keys = jax.random.split(jax.random.key(1), count)
    cells = jax.jit(jax.vmap(lambda key, params: env.reset_env(key, params)[1].cell, (0, None)))(keys, params)
    expected = np.full(104, 1 / 104 if goal < 0 else 1 / 103)
    if goal >= 0:
        expected[goal] = 0
    seen = np.bincount(cells, minlength=104) / count
    assert np.abs(seen - expected).max() < 5 * np.sqrt(0.01 / count)
    assert goal < 0 or seen[goal] == 0


def test_fixed_start_and_defaults(envs):
    for seed in range(3):
        _, state = envs["sutton"].reset_env(jax.random.key(seed), envs["sutton"].default_params)
        assert cell_coordinates(int(state.cell)) == (1, 1)
    assert envs["option-critic"].default_params.max_steps_in_episode == 1000


def test_its_own_step_resets_where_an_episode_ends(envs):
    """At the goal and at the time limit: the start is seen, and what was entered is told besides."""
    env = envs["option-critic"]
    goal, start = cell_index(1, 3), cell_index(9, 9)
    params = env.default_params.replace(goal=goal, start=start, max_steps_in_episode=7)
    for cell, time, ends in (((1, 2), 0, "terminated"), ((5, 5), 6, "truncated"), ((5, 5), 5, None)):
        state, over = fr.FourRoomsState(cell=cell_index(*cell), time=jnp.int32(time)), set()
        for key in jax.random.split(jax.random.key(0), 12):
            obs, after, _, terminated, truncated, info = env.step(key, state, RIGHT, params)
            entered = int(env.step_env(key, state, RIGHT, params)[0])
            assert int(info["final_observation"]) == entered
            assert bool(terminated) == (entered == goal)
            assert bool(truncated) == (time == 6)
            over |= {"terminated"} if terminated else {"truncated"} if truncated else {None}
            ended = bool(terminated | truncated)
            assert (int(obs), int(after.time)) == ((start, 0) if ended else (entered, time + 1))
        assert ends in over


def test_without_a_goal_nothing_ends(envs):
    env = envs["sutton"]
    params = env.default_params.replace(goal=np.int32(fr.NONE))
    P, R = env.model(params)
    assert_close(P, env.transitions)
    assert not np.any(R)
    for cell in (0, 103):
        state = fr.FourRoomsState(cell=np.int32(cell), time=np.int32(0))
        _, _, reward, terminated, _ = env.step_env(jax.random.key(0), state, UP, params)
        assert reward == 0
        assert not terminated


# Contract


@pytest.mark.parametrize("dynamics", ["sutton", "option-critic"])
@pytest.mark.parametrize("observation", ["index", "one_hot", "coordinates"])
def test_conforms(dynamics, observation):
    env = FourRooms(dynamics, observation)
    tasks = four_rooms_tasks(env, goals=[(1, 3), (11, 11)], start=(1, 2))  # one near, one out of reach
    sample = lambda key: tasks.sample(key).replace(max_steps_in_episode=25)
    check_env(env, tasks._replace(sample=sample), episodes=3)


def test_observations():
    state = fr.FourRoomsState(cell=cell_index(7, 9), time=np.int32(0))
    assert FourRooms(observation="index").get_obs(state) == 62
    np.testing.assert_array_equal(FourRooms(observation="coordinates").get_obs(state), [7, 9])
    np.testing.assert_array_equal(FourRooms(observation="one_hot").get_obs(state), np.eye(104)[62])
    space = FourRooms(observation="coordinates").observation_space()
    assert (space.low.tolist(), space.high.tolist()) == ([1, 1], [11, 11])


def test_unknown_switches():
    with pytest.raises(ValueError, match="dynamics is 'sutton' or 'option-critic', not 'bacon'"):
        FourRooms("bacon")
    with pytest.raises(ValueError, match="observation is 'index', 'one_hot' or 'coordinates', not 'pixels'"):
        FourRooms(observation="pixels")


def test_model_is_vmapped_over_goals_and_absorbing(envs):
    env = envs["sutton"]
    goals = jnp.arange(104)
    P, R = jax.jit(jax.vmap(lambda goal: env.model(env.default_params.replace(goal=goal))))(goals)
    assert_close(P.sum(-1), 1.0)
    assert (P[goals, goals, :, goals] == 1).all()
    assert (R[goals, goals] == 0).all()
    one = env.model(env.default_params.replace(goal=jnp.int32(80)))
    np.testing.assert_array_equal(P[80], one[0])
    np.testing.assert_array_equal(R[80], one[1])


# Tasks


def test_one_task(envs):
    tasks = four_rooms_tasks(envs["sutton"], [fr.G2], start=(1, 2))
    params = tasks.test_batch(3, jax.random.key(0))
    assert params.goal.tolist() == [cell_index(*fr.G2)] * 3
    assert params.start.tolist() == [cell_index(1, 2)] * 3


@pytest.mark.parametrize(("start", "missing"), [(None, {0}), ("uniform", set())])
def test_every_goal(envs, start, missing):
    tasks = four_rooms_tasks(envs["sutton"], start=start, resample="episode")
    assert tasks.resample == "episode"
    goals = jax.jit(jax.vmap(lambda key: tasks.sample(key).goal))(jax.random.split(jax.random.key(0), 20_000))
    seen = np.bincount(goals, minlength=104)
    assert set(np.flatnonzero(seen == 0)) == missing
    assert seen.max() < 20_000 / 103 + 5 * np.sqrt(20_000 / 103)


@pytest.mark.parametrize(
    ("goals", "start", "message"),
    [
        ([], None, "there is no goal: give at least one"),
        ([(1, 1)], None, r"the goal \(1, 1\) is the start: choose another goal or another start"),
        ([(9, 9)], (9, 9), r"the goal \(9, 9\) is the start"),
        ([(0, 3)], None, r"\(0, 3\) is no free cell"),
    ],
)
def test_impossible_tasks(envs, goals, start, message):
    with pytest.raises(ValueError, match=message):
        four_rooms_tasks(envs["sutton"], goals, start)


# Pictures


def centre(mask):
    """Row and column of the cell in which the middle of the marked pixels lies; the picture shows 13 by 13 cells."""
    row, col = (pixels.mean() for pixels in np.nonzero(mask))
    return int(row * 13 / mask.shape[0]), int(col * 13 / mask.shape[1])


def test_render_shows_agent_goal_and_start_where_they_are(envs):
    env = envs["sutton"]
    params = env.default_params.replace(goal=cell_index(10, 8), start=cell_index(2, 9))
    state = fr.FourRoomsState(cell=cell_index(8, 3), time=np.int32(0))
    picture = env.render(state, params)
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    assert centre((blue > 150) & (red < 80)) == (8, 3)
    assert centre((red > 200) & (green - blue > 60)) == (10, 8)
    assert centre((red < 30) & (green < 30) & (blue < 30) & (np.arange(256)[:, None] < 90)) == (2, 9)
    for row, col, free in [(0, 0, False), (6, 2, True), (2, 6, False), (3, 6, True), (7, 9, True), (6, 9, True)]:
        middle = picture[int((row + 0.5) * 256 / 13), int((col + 0.5) * 256 / 13)]
        assert (middle == (255 if free else 84)).all()


def test_draw_takes_every_layer(envs):
    from matplotlib.figure import Figure

    env = envs["sutton"]
    ax = Figure().add_subplot()
    values = np.linspace(0, 1, 104)
    values[3] = np.inf
    image = env.draw(ax, env.default_params, values=values, policy=np.full((104, 4), 0.25), cell=5)
    shown = image.get_array()
    assert (shown.shape, int(shown.count())) == ((13, 13), 102)  # neither the goal nor the infinite value
    assert shown[11, 11] == 1  # the last cell: rows go down

    room = fr.room_cells("NW")
    ax = Figure().add_subplot()
    assert env.draw(ax, policy=np.eye(4)[np.zeros(104, int)], initiation=room, termination=1.0 - room) is None
    (arrows,) = (child for child in ax.get_children() if isinstance(child, Quiver))
    assert arrows.N == 25  # only where the option can start
    rings = [patch for patch in ax.patches if isinstance(patch, Circle)]
    assert sorted(ring.center for ring in rings) == [(2, 6), (6, 3)]  # x, y of the two hallways


# A goal that moves


def test_goal_moves_once_after_its_episodes():
    env = FourRooms("option-critic")
    tasks = moving_goal_tasks(env, episodes=3)
    keys = jax.random.split(jax.random.key(0), 500)
    histories = []
    for key in keys[:20]:
        task = tasks.sample(key)
        goals = [int(task.goal)]
        for _ in range(6):
            key, use = jax.random.split(key)
            task = tasks.following(use, task)
            goals.append(int(task.goal))
        histories.append(goals)
    histories = np.array(histories)
    assert (histories[:, :3] == cell_index(*fr.G1)).all()
    assert (histories[:, 3:] == histories[:, 3:4]).all()
    last = tasks.sample(keys[0]).replace(episode=np.int32(2))
    moved = jax.vmap(lambda k: tasks.following(k, last).goal)(keys)
    assert set(np.asarray(moved).tolist()) == set(fr.POSSIBLE_NEXT_GOALS.tolist())
    check_env(env, tasks)


def test_goal_cannot_move_to_the_start():
    with pytest.raises(ValueError, match=r"the goal cannot move to the start \(1, 1\)"):
        moving_goal_tasks(FourRooms(), then=[0, 1])
