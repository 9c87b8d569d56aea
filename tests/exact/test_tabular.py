"""Exact solutions: the reference values of four rooms, brute force on random processes, and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.four_rooms import G1, G2, HALLWAYS, NUM_CELLS, FourRooms, FourRoomsState, cell_index
from jaxrl_hier.abstractions.options import Options, concatenate, primitive_options
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS, hallway_options
from tests.close import assert_close

GAMMA = 0.9
CORNER = int(cell_index(1, 1))
GOALS = {"G1": cell_index(*G1), "G2": cell_index(*G2)}
UNIFORM = jnp.full((NUM_CELLS, 4), 0.25)


@pytest.fixture(scope="module")
def env():
    return FourRooms()


@pytest.fixture(scope="module")
def process(env):
    """P, R of the two goals."""
    return {name: env.model(env.default_params.replace(goal=goal)) for name, goal in GOALS.items()}


@pytest.fixture(scope="module")
def option_sets(env):
    primitives, hallways = primitive_options(NUM_CELLS, 4), hallway_options(env)
    return {"A": primitives, "H": hallways, "A∪H": concatenate(primitives, hallways)}


@pytest.fixture(scope="module")
def models(process, option_sets):
    return {
        (goal, name): smdp.option_models(P, R, options, GAMMA)
        for goal, (P, R) in process.items()
        for name, options in option_sets.items()
    }


# The reference values of four rooms: half a unit of the last digit, and a little for rounding


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("goal", "corner", "mean", "steps", "mean_steps", "random_steps"),
    [("G1", 0.0931, 0.3294, 25.80, 15.01, 697.7), ("G2", 0.0625, 0.3260, 30.03, 15.57, 805.7)],
)
def test_flat_reference_values(process, goal, corner, mean, steps, mean_steps, random_steps):
    P, R = process[goal]
    others = np.arange(NUM_CELLS) != GOALS[goal]
    values = tabular.value_iteration(P, R, GAMMA)
    assert values[CORNER] == pytest.approx(corner, abs=6e-5)
    assert values[others].mean() == pytest.approx(mean, abs=6e-5)
    assert values[GOALS[goal]] == 0
    minimal = tabular.minimal_expected_steps(P)
    assert minimal[CORNER] == pytest.approx(steps, abs=0.006)
    assert minimal[others].mean() == pytest.approx(mean_steps, abs=0.006)
    assert tabular.expected_steps(P, UNIFORM)[CORNER] == pytest.approx(random_steps, abs=0.06)


@pytest.mark.parametrize(
    ("goal", "name", "random_steps", "corner", "optimal_steps"),
    [
        ("G1", "A", 697.7, 0.0931, 25.86),
        ("G1", "H", 58.6, 0.0927, 25.93),
        ("G1", "A∪H", 76.3, 0.0931, 25.86),
        ("G2", "A", 805.7, 0.0625, 30.08),
        ("G2", "H", 204.2, 0.0225, 56.96),
        ("G2", "A∪H", 199.1, 0.0625, 30.08),
    ],
)
def test_option_reference_values(process, option_sets, models, goal, name, random_steps, corner, optimal_steps):
    P, _ = process[goal]
    options = option_sets[name]
    random = smdp.uniform_over_available(options.initiation)
    assert smdp.option_expected_steps(P, options, random)[CORNER] == pytest.approx(random_steps, abs=0.06)
    Q = smdp.smdp_optimal_values(models[goal, name], options.initiation)
    assert Q.max(1)[CORNER] == pytest.approx(corner, abs=6e-5)
    assert jnp.array_equal(jnp.isinf(Q), ~options.initiation.T)
    optimal = smdp.option_expected_steps(P, options, tabular.greedy_policy(Q))
    assert optimal[CORNER] == pytest.approx(optimal_steps, abs=0.006)


# Planning


def test_value_iteration_is_the_limit_of_sweeps_and_the_value_of_its_policy(process):
    P, R = process["G2"]
    values = tabular.value_iteration(P, R, GAMMA)
    sweeps = tabular.value_sweeps(P, R, GAMMA, 150)
    assert_close(sweeps[-1], values)
    greedy = tabular.greedy_policy(tabular.action_values(P, R, values, GAMMA))
    assert_close(tabular.policy_evaluation(P, R, greedy, GAMMA), values)


def test_without_discount_values_are_the_best_rewards(process):
    P, R = process["G2"]
    np.testing.assert_array_equal(tabular.value_iteration(P, R, 0.0), R.max(axis=1))


def test_a_sweep_carries_values_one_cell_with_primitives_and_a_room_with_options(process, option_sets, models):
    P, R = process["G1"]
    flat = tabular.value_sweeps(P, R, GAMMA, 3)
    assert [int((v > 0).sum()) for v in flat] == [0, 2, 8, 18]  # entering cells: the hallway's two sides, and so on
    hallways = option_sets["H"].initiation
    history = smdp.option_value_sweeps(models["G1", "H"], hallways, 60)
    assert int((history[1] > 0).sum()) == 52  # both rooms at the goal and their other hallways
    assert int((history[2] > 0).sum()) == 103
    assert (jnp.diff(history, axis=0) >= -1e-5).all()
    assert_close(history[-1], _best(models["G1", "H"], hallways))
    # over primitives it is value iteration
    assert_close(smdp.option_value_sweeps(models["G1", "A"], option_sets["A"].initiation, 3), flat)


def _best(models, initiation):
    return smdp.smdp_optimal_values(models, initiation).max(1)


def test_solved_for_every_goal_at_once(env, process):
    goals = jnp.arange(NUM_CELLS)
    models = jax.vmap(lambda goal: env.model(env.default_params.replace(goal=goal)))(goals)
    values = jax.vmap(tabular.value_iteration, in_axes=(0, 0, None))(*models, GAMMA)
    assert values.shape == (NUM_CELLS, NUM_CELLS)
    for name, goal in GOALS.items():
        assert_close(values[goal], tabular.value_iteration(*process[name], GAMMA))


def test_the_number_of_sweeps_is_bounded(process):
    P, R = process["G1"]
    bounded = tabular.value_iteration(P, R, GAMMA, max_sweeps=2)
    np.testing.assert_array_equal(bounded, tabular.value_sweeps(P, R, GAMMA, 2)[-1])


# Policies


def test_greedy_policy_shares_ties_and_keeps_to_what_is_available():
    values = jnp.array([[1.0, 1.0 - 5e-7, 0.0], [3.0, 2.0, 2.0], [0.0, 0.0, 0.0]])  # the first: but for rounding
    available = jnp.array([[True, True, True], [False, True, True], [False, False, False]])
    assert_close(tabular.greedy_policy(values), [[0.5, 0.5, 0], [1, 0, 0], [1 / 3] * 3])
    assert_close(tabular.greedy_policy(values, available), [[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 0]])


def test_steps_are_infinite_where_the_end_may_never_come():
    # 0 <-> 1 -> 2 (end); 3 can go to 1 or to the trap 4, which moves on into the trap 5 and back
    successor = np.array([[1, 1], [0, 2], [2, 2], [1, 4], [5, 5], [4, 4]])
    P = jnp.asarray(np.eye(6, dtype=np.float32)[successor])
    first, second = jnp.eye(2)
    follow = lambda action: jnp.broadcast_to(action, (6, 2))
    inf = np.inf
    assert_close(tabular.expected_steps(P, follow(second)), [2, 1, 0, inf, inf, inf])
    assert_close(tabular.expected_steps(P, follow(first)), [inf, inf, 0, inf, inf, inf])
    assert_close(tabular.expected_steps(P, jnp.full((6, 2), 0.5)), [4, 3, 0, inf, inf, inf])
    assert_close(tabular.minimal_expected_steps(P), [2, 1, 0, 2, inf, inf])
    risky = P.at[3, 0].set(jnp.array([0, 0.5, 0, 0, 0.5, 0]))  # now 3 has no safe way
    assert_close(tabular.minimal_expected_steps(risky), [2, 1, 0, inf, inf, inf])

    options = Options(jnp.ones((2, 6), bool), jnp.stack([follow(first), follow(second)]), jnp.zeros((2, 6)))
    durations = [[inf, inf, 0, inf, inf, inf], [2, 1, 0, inf, inf, inf]]
    assert_close(smdp.option_durations(P, options), durations)
    # an endless option does not spoil the steps of a policy that never takes it
    take = lambda o: jnp.zeros((6, 2)).at[:, o].set(1.0)
    assert_close(smdp.option_expected_steps(P, options, take(1)), durations[1])
    assert_close(smdp.option_expected_steps(P, options, take(0)), durations[0])


# Options on random processes, many at a time


@pytest.fixture(scope="module")
def random_processes(count=200, S=6, A=3, O=4):
    """P, R, options and a policy over options, each with a leading axis of processes."""
    rng = np.random.default_rng(0)
    initiation = rng.random((count, O, S)) < 0.6
    initiation[:, 0] = True
    choice = rng.random((count, S, O)) * initiation.transpose(0, 2, 1)
    processes = (
        rng.dirichlet(np.full(S, 0.5), (count, S, A)),
        rng.normal(size=(count, S, A)),
        Options(initiation, rng.dirichlet(np.full(A, 0.5), (count, O, S)), rng.random((count, O, S))),
        choice / choice.sum(-1, keepdims=True),
    )
    return jax.tree.map(jnp.asarray, processes)


@pytest.mark.rounding
def test_option_models_by_summing_over_time(random_processes):
    solved = jax.vmap(smdp.option_models, (0, 0, 0, None))(*random_processes[:3], GAMMA)
    P, R, options, _ = jax.tree.map(lambda x: np.asarray(x, np.float64), random_processes)
    policy_P = np.einsum("nosa,nsat->nost", options.policy, P)
    policy_R = np.einsum("nosa,nsa->nos", options.policy, R)
    reward, transition = np.zeros_like(policy_R), np.zeros_like(policy_P)
    running = np.broadcast_to(np.eye(6), policy_P.shape)  # discounted probability of being in s' and running
    for _ in range(400):
        reward += np.einsum("nost,not->nos", running, policy_R)
        entered = GAMMA * running @ policy_P
        transition += entered * options.termination[:, :, None]
        running = entered * (1 - options.termination[:, :, None])
    assert_close(solved.reward, reward)
    assert_close(solved.transition, transition)


def test_optimal_option_values_satisfy_the_intra_option_equation(random_processes):
    def residual(P, R, options, _):
        models = smdp.option_models(P, R, options, GAMMA)
        best = smdp.smdp_optimal_values(models, options.initiation).max(1)
        Q = smdp.option_values(models, best)  # [S, O], also where the option can only be running
        stop = options.termination.T
        arrival = (1 - stop) * Q + stop * best[:, None]  # U(s', o)
        backup = jnp.einsum("osa,sao->so", options.policy, R[..., None] + GAMMA * jnp.einsum("sat,to->sao", P, arrival))
        chosen = jnp.where(options.initiation.T, Q, -jnp.inf).max(1)  # of the options that can start
        return jnp.maximum(jnp.abs(backup - Q).max(), jnp.abs(chosen - best).max())

    assert jax.jit(jax.vmap(residual))(*random_processes).max() < 2e-5


def test_interrupting_never_lowers_a_value_on_random_processes(random_processes):
    def gains(P, R, options, policy):
        models = smdp.option_models(P, R, options, GAMMA)
        greedy = tabular.greedy_policy(smdp.smdp_optimal_values(models, options.initiation))

        def gain(policy):
            values = smdp.option_policy_evaluation(models, policy)
            interrupted = smdp.interrupt(options, models, values, margin=0.0)
            return smdp.option_policy_evaluation(smdp.option_models(P, R, interrupted, GAMMA), policy) - values

        return gain(policy), gain(greedy)

    with jax.enable_x64(True):
        doubles = jax.tree.map(lambda x: np.asarray(x, bool if x.dtype == bool else np.float64), random_processes)
        for gain in map(np.asarray, jax.jit(jax.vmap(gains))(*doubles)):
            assert gain.dtype == np.float64
            assert gain.min() > -1e-13
            assert (gain.max(1) > 0.01).mean() > 0.5


def test_interrupting_in_four_rooms(process, option_sets, models):
    for goal, (P, R) in process.items():
        options, models_H = option_sets["H"], models[goal, "H"]
        Q = smdp.smdp_optimal_values(models_H, options.initiation)
        for policy in (smdp.uniform_over_available(options.initiation), tabular.greedy_policy(Q)):
            values = smdp.option_policy_evaluation(models_H, policy)
            interrupted = smdp.interrupt(options, models_H, values)
            gain = smdp.option_policy_evaluation(smdp.option_models(P, R, interrupted, GAMMA), policy) - values
            assert gain.min() > -1e-5
            if goal == "G2":  # no hallway option stops at G2, interrupted ones pass it more often
                assert gain.max() > 0.2


def test_primitive_options_are_the_actions(process, models):
    P, R = process["G1"]
    assert_close(models["G1", "A"].reward, R.T)
    assert_close(models["G1", "A"].transition, GAMMA * P.transpose(1, 0, 2))


# Against the environment itself


def test_models_and_steps_against_monte_carlo(env, process, option_sets, models):
    """Random choices among the hallway options, step by step in the environment, from the corner to G1."""
    options, runs, horizon = option_sets["H"], 2000, 500
    params = env.default_params.replace(goal=GOALS["G1"])

    def step(carry, _):
        cell, option, choose, running, k, first, key = carry
        key, key_option, key_action, key_step = jax.random.split(key, 4)
        fresh = jax.random.categorical(key_option, jnp.where(options.initiation[:, cell], 0.0, -jnp.inf))
        option = jnp.where(choose, fresh, option)
        first = jnp.where(k == 0, option, first)
        action = jax.random.categorical(key_action, jnp.log(options.policy[option, cell]))
        state = FourRoomsState(cell=cell, time=jnp.int32(0))
        _, state, reward, terminated, _ = env.step_env(key_step, state, action, params)
        stop = terminated | (options.termination[option, state.cell] > 0.5)  # 0 or 1 for these options
        out = (running, reward, stop, state.cell)
        return (state.cell, option, stop, running & ~terminated, k + 1, first, key), out

    def run(key):
        start = (jnp.int32(CORNER), jnp.int32(0), jnp.bool_(True), jnp.bool_(True), jnp.int32(0), jnp.int32(0), key)
        (*_, first, _), (running, _, stop, cells) = jax.lax.scan(step, start, length=horizon)
        stopped = jnp.argmax(stop)  # the first option's last step
        return first, running.sum(), stopped + 1, cells[stopped], running[-1]

    first, steps, duration, stopped_in, unfinished = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), runs))
    assert not unfinished.any()
    expected = smdp.option_expected_steps(process["G1"][0], options, smdp.uniform_over_available(options.initiation))
    assert abs(steps.mean() - expected[CORNER]) < 4 * steps.std() / runs**0.5

    durations = smdp.option_durations(process["G1"][0], options)
    squared = smdp.option_models(*process["G1"], options, GAMMA**2)  # the mean of gamma^2k
    for option, hallway in ((0, "N"), (1, "W")):
        assert HALLWAY_OPTIONS[option] == f"NW to {hallway}"
        taken = np.asarray(first == option)
        assert abs(taken.mean() - 0.5) < 0.05
        spread = duration[taken].std() / taken.sum() ** 0.5
        assert abs(duration[taken].mean() - durations[option, CORNER]) < 4 * spread
        for cell in (cell_index(*HALLWAYS["N"]), cell_index(*HALLWAYS["W"])):
            discounted = np.asarray(GAMMA ** duration[taken] * (stopped_in[taken] == cell))
            exact = models["G1", "H"].transition[option, CORNER, cell]
            variance = squared.transition[option, CORNER, cell] - exact**2
            assert abs(discounted.mean() - exact) < 4 * (variance / taken.sum()) ** 0.5
