"""Point reach and point push against closed forms of their dynamics; four rooms with any cell as a goal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.four_rooms import CELLS, NUM_CELLS, FourRoomsGoals, four_rooms_goal_tasks, room_cells
from jaxrl_envs.goals import check_goal_env
from jaxrl_envs.point_goals import (
    DISC_DAMPING,
    DISC_MASS,
    DISC_RADIUS,
    POINT_MASS,
    POINT_RADIUS,
    RESPONSE,
    STEP,
    SUBSTEPS,
    PointPush,
    PointReach,
    PushParams,
    PushState,
    ReachParams,
    collide,
    point_push_tasks,
    point_reach_tasks,
)
from tests.close import assert_close
from tests.compiling import optimised_jit

TOUCH = POINT_RADIUS + DISC_RADIUS


@pytest.mark.parametrize("name", ["point-reach", "point-push", "four-rooms-goals"])
def test_conforms(name):
    env, tasks = jaxrl_envs.make(name)
    check_env(env, tasks)
    check_goal_env(env, tasks)


def test_reach_in_space_conforms():
    env = PointReach(3)
    check_env(env, point_reach_tasks(env))
    check_goal_env(env, point_reach_tasks(env))
    with pytest.raises(ValueError, match=r"dimensions is 2 \(the plane\) or 3 \(space\), not 4"):
        PointReach(4)


def played(env, params, start, actions):
    """States, rewards and successes of a sequence of actions [T, D]."""

    def step(state, action):
        _, state, reward, _, info = env.step_env(jax.random.key(0), state, action, params)
        return state, (state, reward, info["success"])

    return optimised_jit(lambda: jax.lax.scan(step, start, actions)[1])()


def test_reach_against_the_closed_form():
    """v_n = a (1 − f^n) and x_n = dt Σ v, for f = e^(−dt/τ)."""
    env, params = PointReach(), ReachParams(goal=np.array([0.5, -0.25], np.float32))
    _, start = env.reset_env(jax.random.key(0), params)
    action = np.array([0.6, -0.3])
    states, reward, success = played(env, params, start, jnp.tile(action, (15, 1)))
    n, f = np.arange(1, 16)[:, None], np.exp(-STEP / RESPONSE)
    assert_close(states.velocity, action * (1 - f**n))
    position = STEP * (n - f * (1 - f**n) / (1 - f)) * action
    assert_close(states.position, position)
    near = np.linalg.norm(position - params.goal, axis=1) <= 0.05
    assert near.any()
    np.testing.assert_array_equal(success, near)
    np.testing.assert_array_equal(reward, near - 1.0)


def test_reach_stops_at_the_wall():
    env = PointReach()
    _, start = env.reset_env(jax.random.key(0), env.default_params)
    states, _, _ = played(env, env.default_params, start, jnp.tile(jnp.array([5.0, 0.2]), (30, 1)))  # clipped to 1
    assert states.position[-1, 0] == 1.0
    assert states.velocity[-1, 0] == 0.0
    assert states.velocity[-1, 1] == pytest.approx(0.2, abs=1e-3)


def pushing(point, disc, velocity=((0.0, 0.0), (0.0, 0.0))):
    return PushState(
        position=jnp.array([point, disc], jnp.float32),
        velocity=jnp.array(velocity, jnp.float32),
        time=jnp.zeros((), jnp.int32),
    )


def test_no_contact_no_motion():
    """The disc stays where it is, bit for bit, while the point drives past it; and a free disc glides to a halt."""
    env, params = PointPush(), PushParams()
    states, _, _ = played(
        env, params, pushing((-0.5, 0.0), (0.0, TOUCH + 0.01)), jnp.tile(jnp.array([1.0, 0.0]), (9, 1))
    )
    assert states.position[-1, 0, 0] > 0.1
    np.testing.assert_array_equal(states.position[:, 1], np.tile(np.float32([0.0, TOUCH + 0.01]), (9, 1)))

    free = pushing((-0.9, -0.9), (0.0, 0.0), ((0.0, 0.0), (1.0, 0.5)))
    states, _, _ = played(env, params, free, jnp.zeros((40, 2)))
    f, h = np.exp(-STEP / SUBSTEPS / DISC_DAMPING), STEP / SUBSTEPS
    assert_close(states.position[-1, 1], np.array([1.0, 0.5]) * h * f / (1 - f), 1e-4)
    assert_close(states.velocity[-1], 0.0, 1e-6, scale=1)


def test_straight_push_against_the_closed_form():
    """Point and disc move as one, by v ← (m_a (a + (v − a) f) + m_o g v) / (m_a + m_o) in each fifth of a step."""
    env, params = PointPush(), PushParams()
    direction = np.array([0.6, 0.8])
    start = -0.7 * direction
    states, _, _ = played(env, params, pushing(start, start + TOUCH * direction), jnp.tile(direction, (15, 1)))
    h, total = STEP / SUBSTEPS, POINT_MASS + DISC_MASS
    f, g = np.exp(-h / RESPONSE), np.exp(-h / DISC_DAMPING)
    growth, drive = (POINT_MASS * f + DISC_MASS * g) / total, POINT_MASS * (1 - f) / total
    n = SUBSTEPS * np.arange(1, 16)
    settled = drive / (1 - growth)
    speed = settled * (1 - growth**n)
    way = h * settled * (n - growth * (1 - growth**n) / (1 - growth))
    for body in (0, 1):
        assert_close(states.velocity[:, body], speed[:, None] * direction, 1e-4)
    assert_close(states.position[:, 0], start + way[:, None] * direction, 1e-4)
    assert_close(states.position[:, 1], start + (way + TOUCH)[:, None] * direction, 1e-4)
    assert settled == pytest.approx(2 / 3, abs=0.02)  # 1 / (1 + m_o τ_a / (m_a τ_o)) as dt goes to 0


def test_off_centre_push():
    """The disc leaves along the line of the centres with v cos θ · m_a / (m_a + m_o); momentum and the point's
    velocity across that line are kept."""
    theta = 0.7
    normal, across = np.array([np.cos(theta), np.sin(theta)]), np.array([-np.sin(theta), np.cos(theta)])
    position = jnp.array([np.zeros(2), TOUCH * normal], jnp.float32)
    velocity = np.array([[0.9, 0.0], [0.0, 0.0]])
    after = np.asarray(collide(position, jnp.array(velocity, jnp.float32)))
    assert_close(after[1], 0.9 * np.cos(theta) * POINT_MASS / (POINT_MASS + DISC_MASS) * normal)
    mass = np.array([POINT_MASS, DISC_MASS])
    assert_close(mass @ after, mass @ velocity)
    assert after[0] @ across == pytest.approx(velocity[0] @ across, abs=1e-5)
    assert after[0] @ normal == pytest.approx(after[1] @ normal, abs=1e-5)  # they do not bounce
    assert_close(collide(position, -jnp.array(velocity)), -velocity)  # nor stick together


def test_off_centre_push_turns_the_disc_aside():
    env, params = PointPush(), PushParams()
    start = pushing((-0.4, -0.05), (0.0, 0.0))
    states, _, _ = played(env, params, start, jnp.tile(jnp.array([1.0, 0.0]), (20, 1)))
    assert states.position[-1, 1, 1] > 0.1  # the point passes below, the disc is pushed up


def test_bodies_stay_apart_and_inside():
    """5 000 episodes of wild actions: no overlap, no tunnelling, nobody leaves the arena, speeds stay bounded."""
    env = PointPush()
    tasks = point_push_tasks(env)

    def episode(key):
        key_task, key_reset, key_wild = jax.random.split(key, 3)
        params = tasks.sample(key_task)
        _, state = env.reset_env(key_reset, params)
        # three quarters of the actions drive at the disc, the rest anywhere
        wild = jax.random.uniform(key_wild, (50, 2), minval=-1.0)

        def step(state, row):
            action, t = row
            towards = jnp.sign(state.position[1] - state.position[0])
            _, state, _, _, _ = env.step_env(key, state, jnp.where(t % 4 > 0, towards, action), params)
            return state, state

        return jax.lax.scan(step, state, (wild, jnp.arange(50)))[1]

    states = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 5000))
    gap = np.linalg.norm(states.position[:, :, 0] - states.position[:, :, 1], axis=-1) - TOUCH
    at_wall = (np.abs(states.position[:, :, 0]) > 1 - POINT_RADIUS - 0.01).any(-1)
    assert gap[~at_wall].min() > -1e-5
    assert gap.min() > -0.01  # a point at a wall cannot yield at once
    assert np.abs(states.position[:, :, 0]).max() <= 1 - POINT_RADIUS + 1e-6
    assert np.abs(states.position[:, :, 1]).max() <= 1 - DISC_RADIUS + 1e-6
    assert np.linalg.norm(states.velocity, axis=-1).max() <= 2**0.5 + 1e-5
    assert (np.abs(states.position[:, -1, 1]).max(-1) > 0.8).any()  # walls were reached


def behind_and_push(obs):
    """Go round the disc to the side away from the goal, then push, ever more slowly."""
    point, disc = obs["observation"][:2], obs["observation"][4:6]
    away = disc - obs["desired_goal"]
    distance = jnp.linalg.norm(away)
    away = away / jnp.maximum(distance, 1e-6)
    seen = point - disc  # from the disc
    radius = jnp.linalg.norm(seen)
    angle = jnp.arctan2(away[0] * seen[1] - away[1] * seen[0], jnp.dot(away, seen))
    tangent = jnp.array([seen[1], -seen[0]]) / radius * jnp.sign(angle)
    around = tangent * jnp.minimum(1.0, 4 * jnp.abs(angle)) + 8 * (TOUCH + 0.06 - radius) * seen / radius
    aside = seen - jnp.dot(seen, away) * away
    forward = -away * jnp.clip(6 * (distance - 0.03), 0.0, 1.0) - 6 * aside
    action = jnp.where(jnp.abs(angle) < 0.25, forward, around)
    return jnp.where(distance < 0.04, jnp.where(radius < TOUCH + 0.1, seen / radius, 0.0), action)


@pytest.mark.parametrize(
    ("env", "tasks", "controller", "solved"),
    [
        (PointReach(), point_reach_tasks, lambda obs: 5 * (obs["desired_goal"] - obs["achieved_goal"]), 1.0),
        (PointReach(3), point_reach_tasks, lambda obs: 5 * (obs["desired_goal"] - obs["achieved_goal"]), 1.0),
        (PointPush(), point_push_tasks, behind_and_push, 0.95),
    ],
    ids=["reach", "reach in space", "push"],
)
def test_a_scripted_controller_succeeds(env, tasks, controller, solved):
    """At the last step, in 2 000 episodes; doing nothing succeeds in less than 5 %."""
    tasks = tasks(env)

    def episode(key, controller):
        key_task, key_reset = jax.random.split(key)
        params = tasks.sample(key_task)

        def step(carry, _):
            obs, state, _, _, info = env.step_env(key, carry[1], controller(carry[0]), params)
            return (obs, state), info["success"]

        return jax.lax.scan(step, env.reset_env(key_reset, params), length=50)[1][-1]

    keys = jax.random.split(jax.random.key(1), 2000)
    success = lambda controller: float(jax.jit(jax.vmap(lambda key: episode(key, controller)))(keys).mean())
    assert success(controller) >= solved
    assert success(lambda obs: jnp.zeros(env.dimensions)) < 0.05


def test_the_disc_starts_near_and_apart():
    env = PointPush()
    _, states = jax.vmap(env.reset_env, (0, None))(jax.random.split(jax.random.key(0), 4000), env.default_params)
    distance = np.linalg.norm(states.position[:, 1], axis=1)
    assert distance.min() >= 0.3 - 1e-6
    assert distance.max() <= 0.5 + 1e-6
    inner = (distance < 0.4).mean()  # (0.4² − 0.3²) / (0.5² − 0.3²) of the ring's area
    assert inner == pytest.approx(7 / 16, abs=4 * (0.25 / 4000) ** 0.5)


def colored(picture, color):
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    masks = {
        "orange": (red > 200) & (green - blue > 60),
        "blue": (blue > 150) & (red < 80),
        "grey": (abs(red - 140) < 12) & (abs(green - 140) < 12) & (abs(blue - 140) < 12),
    }
    rows, columns = np.nonzero(masks[color])
    return rows.mean(), columns.mean()


def test_render_shows_the_bodies_and_the_goal():
    env, params = PointPush(), PushParams(goal=np.array([0.5, 0.5], np.float32))
    picture = env.render(pushing((-0.5, -0.5), (0.5, -0.5)), params)
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    goal, point, disc = colored(picture, "orange"), colored(picture, "blue"), colored(picture, "grey")
    assert goal[0] < 128 < goal[1]  # up and right
    assert point[1] < 128 < point[0]  # down and left
    assert min(disc) > 128  # down and right

    reach = PointReach()
    _, state = reach.reset_env(jax.random.key(0), reach.default_params)
    picture = reach.render(state.replace(position=jnp.array([-0.5, -0.5])), ReachParams(goal=params.goal))
    assert colored(picture, "orange")[0] < 128 < colored(picture, "blue")[0]


# Four rooms with goals


def test_held_out_goals_are_never_drawn():
    env = FourRoomsGoals()
    for held_out in (10, "NE"):
        tasks = four_rooms_goal_tasks(env, held_out)
        drawn = set(np.asarray(jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 4000)).goal).tolist())
        test = set(np.asarray(tasks.test.goal).tolist())
        assert not drawn & test
        assert drawn | test == set(range(NUM_CELLS))
    assert test == set(np.flatnonzero(room_cells("NE")))
    with pytest.raises(ValueError, match="'N' is no room; the rooms are NW, NE, SE, SW"):
        four_rooms_goal_tasks(env, "N")
    with pytest.raises(ValueError, match="of 104 goals 1 to 103 can be held out, not 104"):
        four_rooms_goal_tasks(env, 104)


@pytest.mark.parametrize("observation", ["index", "one_hot", "coordinates"])
def test_reward_and_model_of_four_rooms_with_a_goal(observation):
    """Every cell and action: the model is the average of steps, whose reward is that of the next achieved goal."""
    env = FourRoomsGoals(observation=observation)
    params = env.default_params.replace(goal=jnp.int32(30))
    obs, state = env.reset_env(jax.random.key(3), params)
    np.testing.assert_array_equal(obs["desired_goal"], env.encode(jnp.int32(30)))
    np.testing.assert_array_equal(obs["achieved_goal"], env.encode(state.cell))
    P, R = env.model(params)
    assert_close(P.sum(-1), 1.0)
    cell, draws = jnp.int32(29), 4000  # beside the goal
    keys = jax.random.split(jax.random.key(0), draws)
    after = jax.vmap(lambda key: env.step_env(key, state.replace(cell=cell), 3, params))(keys)
    assert float(after[2].mean()) == pytest.approx(float(R[29, 3]), abs=4 * 0.5 / draws**0.5)
    assert not after[3].any()
    np.testing.assert_array_equal(after[4]["success"], after[1].cell == 30)
    np.testing.assert_array_equal(after[2], np.where(after[1].cell == 30, 0.0, -1.0))
    assert tuple(CELLS[30] - CELLS[29]) == (0, 1)
