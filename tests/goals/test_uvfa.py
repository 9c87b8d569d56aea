"""Value functions of all goals against exact tables, the singular value decomposition, and a grid of nine cells."""

from dataclasses import replace
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from jax.flatten_util import ravel_pytree

import jaxrl_hier
from jaxrl_envs import check_env
from jaxrl_envs.four_rooms import NUM_CELLS, FourRooms, FourRoomsGoals, FourRoomsParams
from jaxrl_envs.goals import GoalSpace, check_goal_env
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import ActInput
from jaxrl_hier.exact import tabular
from jaxrl_hier.goals import uvfa
from tests.close import assert_close
from tests.compiling import optimised_jit, quick_jit

GAMMA = 0.9
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
SIDE = 3


@struct.dataclass
class GridState(environment.EnvState):
    cell: jax.Array
    time: jax.Array


@struct.dataclass
class GridParams(environment.EnvParams):
    goal: jax.Array | np.int32 = struct.field(default_factory=lambda: np.int32(0))
    max_steps_in_episode: int = 12


class Grid(environment.Environment):
    """Nine cells, four moves without noise; start and goal anywhere."""

    def __init__(self):
        super().__init__()
        cells = np.stack(np.divmod(np.arange(SIDE**2), SIDE), axis=1)
        moved = np.clip(cells[:, None] + MOVES, 0, SIDE - 1)
        self.table = moved[..., 0] * SIDE + moved[..., 1]  # [S, A]
        self.transitions = np.eye(SIDE**2, dtype=np.float32)[self.table]

    @property
    def default_params(self):
        return GridParams()

    def observe(self, state, params):
        return {"observation": state.cell, "achieved_goal": state.cell, "desired_goal": jnp.asarray(params.goal)}

    def reset_env(self, key, params):
        state = GridState(cell=jax.random.randint(key, (), 0, SIDE**2), time=jnp.zeros((), jnp.int32))
        return self.observe(state, params), state

    def step_env(self, key, state, action, params):
        state = GridState(cell=jnp.asarray(self.table, jnp.int32)[state.cell, action], time=state.time + 1)
        reward = self.compute_reward(state.cell, jnp.asarray(params.goal), params)
        return self.observe(state, params), state, reward, jnp.zeros((), bool), {"success": reward == 0}

    def compute_reward(self, achieved_goal, desired_goal, params):
        return jnp.where(achieved_goal == desired_goal, 0.0, -1.0)

    def action_space(self, params=None):
        return spaces.Discrete(4)

    def observation_space(self, params=None):
        return GoalSpace(spaces.Discrete(SIDE**2), spaces.Discrete(SIDE**2))


def grid_tasks():
    return Tasks(sample=lambda key: GridParams(goal=jax.random.randint(key, (), 0, SIDE**2)), resample="episode")


@pytest.fixture(scope="module")
def rooms():
    """P, V* and Q* of four rooms, every cell a goal."""
    P = jnp.asarray(FourRoomsGoals().transitions, jnp.float32)
    values = uvfa.exact_values(P, GAMMA)
    return P, values, uvfa.backup(P, values, GAMMA)


@pytest.fixture(scope="module")
def grid():
    P = jnp.asarray(Grid().transitions)
    values = uvfa.exact_values(P, GAMMA)
    return P, values, uvfa.backup(P, values, GAMMA)


# Exact values


def test_exact_values_are_those_of_each_goal_alone(rooms):
    P, values, q = rooms
    env = FourRooms()
    for goal in (0, 33, 103):
        model = env.model(FourRoomsParams(goal=jnp.int32(goal)))
        alone = tabular.value_iteration(*model, GAMMA)
        elsewhere = np.arange(NUM_CELLS) != goal
        assert_close(values[elsewhere, goal], alone[elsewhere])
        # at the goal itself it is what coming back is worth
        returning = tabular.action_values(*model, alone, GAMMA)
        back = jnp.einsum("at,t->a", P[goal], jnp.where(elsewhere, GAMMA * alone, 1.0))
        assert_close(q[goal, :, goal], back)
        assert_close(q[elsewhere, :, goal], returning[elsewhere])


def test_values_of_policies(rooms, grid):
    P, values, q = rooms
    greedy = jax.vmap(tabular.greedy_policy, in_axes=2, out_axes=2)
    assert_close(uvfa.policy_values(P, greedy(q), GAMMA, 300), values)
    P, values, q = grid
    row, col = np.divmod(np.arange(SIDE**2), SIDE)
    distance = abs(row[:, None] - row) + abs(col[:, None] - col)
    for steps in range(1, 5):  # without noise a goal is reached in time or it is not; into a wall and back takes 1
        arrived = uvfa.policy_values(P, greedy(q), 1.0, steps)
        off = distance > 0
        assert_close(arrived[off], (distance <= steps)[off])
    assert_close(values[off], GAMMA ** (distance[off] - 1.0))


# Factorisation


def test_factorisation_is_the_best_of_its_rank(rooms):
    table = np.asarray(rooms[1], np.float64)
    size = np.linalg.svd(table, compute_uv=False)
    for rank in (1, 4, 104):
        phi, psi = uvfa.factorise(table, rank)
        assert phi.shape == psi.shape == (NUM_CELLS, rank)
        error = np.linalg.norm(table - phi @ psi.T)
        assert error == pytest.approx(np.sqrt(np.sum(size[rank:] ** 2)), abs=1e-9)  # Eckart & Young
    np.testing.assert_allclose(np.linalg.norm(phi, axis=0), np.linalg.norm(psi, axis=0), atol=1e-9)


def test_alternating_least_squares_without_gaps_is_the_decomposition(rooms):
    table = np.asarray(rooms[1], np.float64)
    phi, psi = uvfa.factorise(table, 3)
    phi_als, psi_als = uvfa.factorise(table, 3, observed=np.ones_like(table, bool), ridge=0.0)
    np.testing.assert_allclose(phi_als @ psi_als.T, phi @ psi.T, atol=1e-8)


def test_gaps_of_a_low_rank_table_are_filled():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 50))
    observed = rng.random(table.shape) < 0.5
    observed[:, 7] = False
    phi, psi = uvfa.factorise(np.where(observed, table, np.nan), 3, observed, ridge=1e-9)
    seen = np.arange(50) != 7
    np.testing.assert_allclose((phi @ psi.T)[:, seen], table[:, seen], atol=1e-4)
    np.testing.assert_allclose(psi[7], 0.0, atol=1e-9)


def test_rank_that_a_table_cannot_have():
    for rank in (0, 6):
        with pytest.raises(UsageError, match=f"a table of 5 × 9 has no rank {rank}"):
            uvfa.factorise(np.ones((5, 9)), rank)


# Networks


@pytest.mark.parametrize("network", [uvfa.TwoStream(4, 6, (8,)), uvfa.Concatenated(4, (8,))], ids=["two", "one"])
def test_pairs_of_states_and_goals_are_broadcast(network):
    s, g = jax.random.normal(jax.random.key(0), (5, 3)), jax.random.normal(jax.random.key(1), (7, 2))
    params = network.init(jax.random.key(2), s[:1], g[:1])
    table = network.apply(params, s[:, None], g[None])
    assert table.shape == (5, 7, 4)
    assert_close(table[3, 2], network.apply(params, s[3], g[2]))
    if isinstance(network, uvfa.TwoStream):
        phi = network.apply(params, s, method=uvfa.TwoStream.phi)
        psi = network.apply(params, g, method=uvfa.TwoStream.psi)
        assert (phi.shape, psi.shape) == ((5, 4, 6), (7, 6))
        assert_close(table, np.einsum("sak,gk->sga", phi, psi))


def test_features():
    space = spaces.Box(np.array([1.0, 0.0]), np.array([3.0, 10.0]), (2,))
    assert_close(uvfa.features(space)(jnp.array([[1.0, 10.0], [2.0, 5.0]])), [[-1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_array_equal(uvfa.features(spaces.Discrete(3))(jnp.int32(1)), [0.0, 1.0, 0.0])
    always = spaces.Box(np.array([0.0, 1.0]), np.array([2.0, 1.0]), (2,))  # the second says nothing
    np.testing.assert_array_equal(uvfa.features(always)(jnp.array([2.0, 1.0])), [1.0, 0.0])
    for wrong in (spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(0.0, 1.0, (2, 2))):
        with pytest.raises(UsageError, match="flat vectors with bounds"):
            uvfa.features(wrong)


# Supervised


@pytest.mark.parametrize("way", ["concatenated", "end to end", "two stages"])
def test_regression_on_the_exact_table(grid, way):
    """With one-hot inputs and full rank the grid's table can be fitted exactly, and is."""
    _, values, q = grid
    one_hot = jnp.eye(SIDE**2)
    settings = {"steps": 1500, "batch": 64, "learning_rate": 1e-2}
    if way == "two stages":
        network = uvfa.TwoStream(4, 9, (32,))
        params = uvfa.fit_two_stage(network, one_hot, one_hot, q, jax.random.key(0), **settings)
    else:
        network = uvfa.Concatenated(4, (64,)) if way == "concatenated" else uvfa.TwoStream(4, 9, (32,))
        params = uvfa.fit_values(network, one_hot, one_hot, q, jax.random.key(0), **settings)
    fitted = network.apply(params, one_hot[:, None], one_hot[None])  # [S, G, A]
    assert float(jnp.sqrt(jnp.mean((fitted.transpose(0, 2, 1) - q) ** 2))) < 0.01
    np.testing.assert_allclose(jnp.max(fitted, axis=2), values, atol=0.05)


def test_held_out_goals_of_four_rooms(rooms):
    """Interpolation: the values of ten cells that were never goals lead there."""
    P, _, q = rooms
    env = FourRoomsGoals()
    cells = uvfa.features(env.observation_space().spaces["observation"])(env.encode(jnp.arange(NUM_CELLS)))
    shuffled = np.random.default_rng(0).permutation(NUM_CELLS)
    held_out, known = np.sort(shuffled[:10]), np.sort(shuffled[10:])
    network = uvfa.TwoStream(4, 20, (64, 64))
    settings = {"steps": 2000, "batch": 64, "learning_rate": 3e-3}
    params = uvfa.fit_two_stage(network, cells, cells[known], q[:, :, known], jax.random.key(0), **settings)
    fitted = network.apply(params, cells[:, None], cells[None]).transpose(0, 2, 1)
    policies = jax.vmap(lambda x: tabular.greedy_policy(x, tolerance=0.0), in_axes=2, out_axes=2)(fitted)
    arrived = np.asarray(uvfa.policy_values(P, policies, 1.0, 100))
    assert arrived[:, known].mean() > 0.9
    assert arrived[:, held_out].mean() > 0.8


# By bootstrapping


def test_grid_conforms():
    check_env(Grid(), grid_tasks())
    check_goal_env(Grid(), grid_tasks())


class Trap(Grid):
    """The last cell ends the episode, whatever the goal."""

    def step_env(self, key, state, action, params):
        obs, state, reward, _, info = super().step_env(key, state, action, params)
        return obs, state, reward, state.cell == SIDE**2 - 1, info


SMALL = {"environments": 4, "rollout_length": 6, "goals_per_update": 2, "rank": 3, "hidden": (4,), "activation": "tanh"}


@pytest.fixture(scope="module")
def updates():
    """A state with terminations and truncations and a target network different from the learned one; and six updates
    from it that differ only in the iteration's number."""
    tasks = Tasks(
        sample=lambda key: GridParams(goal=jax.random.randint(key, (), 0, SIDE**2), max_steps_in_episode=4),
        resample="episode",
    )
    config = uvfa.Config(**SMALL, discount=GAMMA, target_rate=0.3)
    algorithm = uvfa.make(config, Trap(), tasks)
    state = algorithm.init(jax.random.key(3))
    rng = np.random.default_rng(0)
    noisy = lambda tree, size: jax.tree.map(lambda x: x + size * rng.normal(size=x.shape).astype(x.dtype), tree)
    target = noisy(state.params, 0.7)
    state = replace(state, params=noisy(state.params, 0.5), learner=(target, state.learner[1]))
    step = quick_jit(algorithm.step)
    t = quick_jit(lambda s: rollout(Trap(), algorithm.agent, tasks, s.params, s.world, 6)[1])(state)
    assert t.terminated.any()
    assert t.truncated.any()
    return state, jax.device_get(t), [step(replace(state, iteration=jnp.int32(i))) for i in range(6)]


def gradients_by_hand(state, t):
    """Gradients of the mean squared error for each environment's goal [G, parameters], and arrivals [T, B, G]."""
    network, one_hot = uvfa.TwoStream(4, 3, (4,), "tanh"), jnp.eye(SIDE**2)
    of = lambda params: network.apply(params, one_hot[:, None], one_hot[None])  # [S, G, A]
    goals, target = t.obs["desired_goal"][-1], np.asarray(of(state.learner[0]))
    wanted, arrivals, promised = (np.zeros((6, 4, 4)) for _ in range(3))
    for i, b, g in np.ndindex(wanted.shape):
        following = t.next_obs["observation"][i, b]
        arrivals[i, b, g] = following == goals[g]
        promised[i, b, g] = GAMMA * np.clip(target[following, goals[g]].max(), 0, 1)
        future = 0.0 if t.terminated[i, b] else promised[i, b, g]
        wanted[i, b, g] = 1.0 if arrivals[i, b, g] else future
    assert (target > 1).any()
    assert (target.max(axis=2) < 0).any()
    assert (promised - wanted)[t.terminated].any(where=arrivals[t.terminated] == 0)  # some ends would have a value

    def errors(flat):
        q = of(unravel(flat))[t.obs["observation"][..., None], goals, t.action[..., None]]
        return jnp.mean((q - wanted) ** 2, axis=(0, 1))

    flat, unravel = ravel_pytree(state.params)
    return np.asarray(quick_jit(jax.jacrev(errors))(flat)), arrivals


def taught(state, t, updated):
    """The two environments' goals that an update used, inferred from the gradient that Adam received."""
    gradients, arrivals = gradients_by_hand(state, t)
    used = 10 * np.asarray(ravel_pytree(optax.tree_utils.tree_get(updated[0].learner[1], "mu"))[0])
    pairs = list(combinations(range(4), 2))
    far = [np.abs(used - gradients[list(pair)].mean(axis=0)).max() for pair in pairs]
    pair = pairs[int(np.argmin(far))]
    assert min(far) < 1e-4 * np.abs(used).max()
    np.testing.assert_allclose(updated[1]["arrivals"], arrivals[..., list(pair)].mean(), rtol=1e-5)
    return pair


def test_an_update_by_hand(updates):
    """Targets by a loop: 1 on arrival, 0 after the task's end, else the clipped value of the target network, which
    then moves by its share."""
    state, t, done = updates
    taught(state, t, done[0])
    after = done[0][0]
    expected = jax.tree.map(lambda old, new: old + 0.3 * (new - old), state.learner[0], after.params)
    assert_close(after.learner[0], expected)


def test_goals_are_drawn_anew_for_every_update(updates):
    state, t, done = updates
    assert len(set(t.obs["desired_goal"][-1].tolist())) == 4
    assert len({taught(state, t, updated) for updated in done}) > 2


def test_acting_is_epsilon_greedy_for_the_wanted_goal(updates):
    state, count = updates[0], 4000
    agent = uvfa.make(uvfa.Config(**SMALL, epsilon=0.4), Trap(), grid_tasks()).agent
    one_hot = jnp.eye(SIDE**2)
    table = uvfa.TwoStream(4, 3, (4,), "tanh").apply(state.params, one_hot[:, None], one_hot[None])
    likes = np.asarray(jnp.argmax(table, axis=2))  # [S, G]
    cell = int(np.argmax(np.ptp(likes, axis=1) > 0))
    wanted, reached = int(np.argmax(likes[cell])), int(np.argmin(likes[cell]))  # of which it likes other actions
    best = likes[cell, wanted]
    assert best != likes[cell, reached]
    obs = {"observation": cell, "achieved_goal": reached, "desired_goal": wanted}
    obs = {name: jnp.int32(value) for name, value in obs.items()}
    inp = ActInput(obs, jnp.int32(0), jnp.zeros(()), jnp.array(False))
    draw = lambda greedy: quick_jit(jax.vmap(lambda key: agent.act(state.params, (), inp, key, greedy)[0]))(
        jax.random.split(jax.random.key(0), count)
    )
    assert (draw(True) == best).all()
    expected = np.full(4, 0.1)
    expected[best] += 0.6
    np.testing.assert_allclose(np.bincount(draw(False), minlength=4) / count, expected, atol=5 * 0.5 / count**0.5)


def test_evaluations_play_anew():
    """Held-out goals are unreachable and training goals partly so, so that the measurements show which goals were
    drawn."""
    task = lambda goal: GridParams(goal=goal, max_steps_in_episode=2)
    sample = lambda key: task(jnp.where(jax.random.bernoulli(key), 4, -1))
    tasks = Tasks(sample=sample, resample="episode", test=jax.vmap(task)(jnp.full(10, -1)))
    algorithm = uvfa.make(uvfa.Config(**SMALL, eval_episodes=64), Grid(), tasks)
    state, evaluate = algorithm.init(jax.random.key(0)), quick_jit(algorithm.evaluate)
    shares = []
    for key in (1, 2):
        measured = evaluate(state, jax.random.key(key))
        assert (measured["success"].values == 0).all()
        shares.append(np.asarray(measured["success_on_learned"].values))
    reachable = [x > 0 for x in shares]
    assert 0 < reachable[0].sum() < 10
    assert (reachable[0] != reachable[1]).any()
    for x in shares:  # 64 other starts for each task
        assert len(np.unique(x[x > 0])) > 1
    both = reachable[0] & reachable[1]
    assert (shares[0][both] != shares[1][both]).any()


@pytest.mark.parametrize("architecture", ["two-stream", "concatenated"])
def test_bootstrapping_reaches_the_exact_values(grid, architecture):
    _, _, q = grid
    settings = {
        "environments": 16,
        "rollout_length": 4,
        "goals_per_update": 8,
        "hidden": (32,),
        "rank": 9,
        "target_rate": 0.05,
    }
    algorithm = jaxrl_hier.make(
        "uvfa", Grid(), grid_tasks(), **settings, architecture=architecture, discount=GAMMA, learning_rate=3e-3
    )
    state = jax.jit(algorithm.init)(jax.random.key(0))
    state = optimised_jit(lambda state: jax.lax.fori_loop(0, 1500, lambda _, s: algorithm.step(s)[0], state))(state)
    network = uvfa.TwoStream(4, 9, (32,)) if architecture == "two-stream" else uvfa.Concatenated(4, (32,))
    one_hot = jnp.eye(SIDE**2)
    learned = network.apply(state.params, one_hot[:, None], one_hot[None]).transpose(0, 2, 1)
    np.testing.assert_allclose(learned, q, atol=0.08)
    measured = jax.jit(algorithm.evaluate)(state, jax.random.key(1))
    assert measured["success"].values.shape == (10,)
    assert float(measured["success"].values.min()) == 1.0


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        ("four-rooms", {}, "uvfa needs an environment with goals, such as four-rooms-goals; FourRooms has none"),
        ("point-reach", {}, "uvfa needs discrete actions; PointReach has Box actions"),
        (
            "four-rooms-goals",
            {"goals_per_update": 65, "environments": 64},
            "goals_per_update must be at most environments \\(64\\), from whose goals they are drawn, got 65",
        ),
        ("four-rooms-goals", {"eval_goals": 11}, "eval_goals must be at most 10, which the tasks hold out, got 11"),
        ("four-rooms-goals", {"architecture": "three"}, "architecture must be one of two-stream, concatenated"),
        ("four-rooms-goals", {"rank": 0}, "rank must be positive, got 0"),
    ],
)
def test_bad_input(env, settings, message):
    with pytest.raises(UsageError, match=message):
        jaxrl_hier.make("uvfa", env, **settings)
