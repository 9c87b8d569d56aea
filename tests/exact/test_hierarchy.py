"""Exact values of task graphs: published optima, closed forms, and what must hold between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.four_rooms import FourRooms, cell_index
from jaxrl_envs.taxi import Taxi
from jaxrl_hier.abstractions.task_graph import Child, Subtask, task_graph
from jaxrl_hier.exact import tabular
from jaxrl_hier.exact.hierarchy import (
    hierarchical_values,
    hierarchically_optimal,
    polled_policy,
    polled_values,
    recursively_optimal,
)
from jaxrl_hier.hierarchical.graphs import rooms_graph, taxi_graph
from tests.close import assert_close


@pytest.fixture(scope="module")
def fickle():
    env = Taxi(noise=True, fickle=True)
    return env, taxi_graph(env), *env.model(env.default_params)


@pytest.mark.parametrize(
    ("rules", "optimum"),
    [({}, 8.555), ({"noise": True}, 5.1485), ({"rules": "gymnasium"}, 7.93)],
)
def test_taxi_loses_nothing_by_its_hierarchy(rules, optimum):
    env = Taxi(**rules)
    P, R = env.model(env.default_params)
    start, graph = env.start_distribution(env.default_params), taxi_graph(env)
    solved = recursively_optimal(P, R, graph)
    assert_close(start @ solved.value[-1], optimum, 1e-4)
    assert_close(start @ hierarchically_optimal(P, R, graph), optimum, 1e-4)
    assert_close(start @ polled_values(P, R, graph, solved.choice), optimum, 1e-4)


def test_fickle_taxi_loses_by_its_hierarchy_and_wins_it_back_by_polling(fickle):
    env, graph, P, R = fickle
    seen, start = env.observation_of_state, env.start_distribution(env.default_params)
    solved = recursively_optimal(P, R, graph, observed=seen)
    assert_close(start @ solved.value[-1], 3.514, 2e-4)
    assert_close(start @ polled_values(P, R, graph, solved.choice, observed=seen), 5.565, 1e-4)
    optimum = start @ hierarchically_optimal(P, R, graph, observed=seen)
    # on his site a destination is drawn with each attempt: to go on bumping into a wall pays a little
    assert 3.514 < optimum < 3.53
    assert optimum < 5.603


def test_decomposition_of_fickle_taxi_is_consistent(fickle):
    env, graph, P, R = fickle
    seen, states = env.observation_of_state, np.arange(env.num_states)
    solved = recursively_optimal(P, R, graph, observed=seen)
    again = hierarchical_values(P, R, graph, solved.choice, observed=seen)
    for one, other in zip(solved, again):
        assert_close(one, other)
    for i in range(len(graph.slots)):
        called = graph.child[seen][:, i].T
        q = np.where(called >= 0, np.asarray(solved.value)[called, states] + solved.completion[i], -np.inf)
        running = ~graph.terminal[seen][:, i] & ~env.ended
        assert_close(solved.value[graph.num_actions + i][running], q[solved.choice[i], states][running])
        assert_close(q.max(0)[running], q[solved.choice[i], states][running])  # no end that is no goal can happen


def test_taxis_abstractions_are_safe():
    """States that share a value of C or V have the same one (with the published C(Root, s, Put) = 0)."""
    env = Taxi()
    P, R = env.model(env.default_params)
    graph = taxi_graph(env)
    solved = recursively_optimal(P, R, graph)
    completion = np.transpose(solved.completion, (2, 0, 1))
    used = (graph.child >= 0) & ~env.ended[:, None, None]
    for entry in range(graph.completions + 1):
        shared = completion[used & (graph.entry == entry)]
        expected = shared[:1] if entry < graph.completions else 0.0
        assert_close(shared, np.broadcast_to(expected, shared.shape), scale=20)
    reward = np.asarray(solved.value[: graph.num_actions].T)
    for entry in range(graph.rewards):
        assert np.ptp(reward[:500][graph.reward_entry[:500] == entry]) < 2e-4


def two_doors(pseudo_reward=0.0):
    """Out of the hall (0) the near door (1) costs 1 and the far one (2) costs 2; home (3) is 10 from the one, 1 from
    the other. To leave the hall is a subtask, for which only the far door is the goal if there is a pseudo-reward."""
    P, R = np.zeros((4, 2, 4)), np.zeros((4, 2))
    for s, a, after, cost in [(0, 0, 1, 1), (0, 1, 2, 2), (1, 0, 3, 10), (1, 1, 3, 10), (2, 0, 3, 1), (2, 1, 3, 1)]:
        P[s, a, after], R[s, a] = 1, -cost
    P[3, :, 3] = 1
    states = np.arange(4)
    goal = states == 2 if pseudo_reward else states > 0
    leave = Subtask({"near": Child("near"), "far": Child("far")}, states > 0, goal, pseudo_reward)
    root = Subtask({"Leave": Child("Leave"), "near": Child("near", binding=np.where(states == 0, -1, 0))}, states == 3)
    graph = task_graph(4, ("near", "far"), {"Leave": leave, "Root": root}, possible=P > 0)
    return jnp.asarray(P), jnp.asarray(R), graph


def test_recursive_optimality_is_not_hierarchical_optimality():
    P, R, graph = two_doors()
    solved = recursively_optimal(P, R, graph)
    assert_close(solved.value[-1], [-11, -10, -1, 0])
    assert_close(solved.value[-2], [-1, 0, 0, 0])  # V(Leave, s)
    assert_close(solved.completion[1, 0], [-10, 0, 0, 0])  # C(Root, s, Leave)
    assert_close(hierarchically_optimal(P, R, graph), [-3, -10, -1, 0])
    assert_close(polled_values(P, R, graph, solved.choice), [-11, -10, -1, 0])


def test_pseudo_rewards_decide_and_do_not_count():
    P, R, graph = two_doors(pseudo_reward=-100.0)
    solved = recursively_optimal(P, R, graph)
    assert_close(solved.value[-1], [-3, -10, -1, 0])
    assert_close(solved.inside[0, :, 0], [-100, 0])  # C̃(Leave, hall, ·)
    assert_close(solved.completion[0, :, 0], [0, 0])
    bad = hierarchical_values(P, R, graph, solved.choice.at[0, 0].set(0))
    assert_close(bad.value[-1, 0], -11)


def test_choices_may_depend_on_the_caller():
    """Twice through the same subtask: the first call must go one way for its caller, the second the other."""
    # 0 -A-> 1 or 2; from 1 it costs 5 to end, from 2 nothing, but B wants 1, where it is given 9
    states = np.arange(4)
    P, R = np.zeros((4, 3, 4)), np.zeros((4, 3))
    for s, a, after, reward in [(0, 0, 1, 0), (0, 1, 2, 0), (0, 2, 3, -8)]:
        P[s, a, after], R[s, a] = 1, reward
    for a in range(3):
        P[1, a, 3], P[2, a, 3], P[3, a, 3] = 1, 1, 1
    R[1], R[2] = -5, (-1, -1, -1)
    step = Subtask({"a": Child("a"), "b": Child("b")}, states > 0)
    inner = Subtask({"Step": Child("Step"), "a": Child("a", binding=np.where(states == 0, -1, 0))}, states == 3)
    root = Subtask({"Inner": Child("Inner"), "Step": Child("Step"), "c": Child("c")}, states == 3)
    graph = task_graph(4, ("a", "b", "c"), {"Step": step, "Inner": inner, "Root": root}, possible=P > 0)
    P, R = jnp.asarray(P), jnp.asarray(R)
    assert_close(hierarchically_optimal(P, R, graph), [-1, -5, -1, 0])
    assert recursively_optimal(P, R, graph).value[-1, 0] == -5  # of two equal ways, Step takes the first


def test_subtasks_that_end_together_leave_the_rest_to_their_caller():
    """0 -> 1 costs 1 and ends Inner and Outer at once; the root then pays 5 for 1 -> 2."""
    states = np.arange(3)
    P, R = jnp.eye(3)[jnp.array([[1], [2], [2]])], jnp.array([[-1.0], [-5.0], [0.0]])
    inner = Subtask({"go": Child("go")}, states > 0)
    outer = Subtask({"Inner": Child("Inner")}, states > 0)
    root = Subtask({"Outer": Child("Outer"), "go": Child("go", binding=np.where(states == 0, -1, 0))}, states == 2)
    graph = task_graph(3, ("go",), {"Inner": inner, "Outer": outer, "Root": root}, possible=P > 0)
    assert_close(hierarchically_optimal(P, R, graph), [-6, -5, 0])
    assert_close(recursively_optimal(P, R, graph).value[-1], [-6, -5, 0])


@pytest.fixture(scope="module")
def rooms():
    env = FourRooms()
    goal = cell_index(9, 9)
    return *env.model(env.default_params.replace(goal=goal)), rooms_graph(env, goal)


def test_optima_of_four_rooms_are_ordered(rooms):
    P, R, graph = rooms
    flat = tabular.value_iteration(P, R, 0.9, 1e-7)
    solved = recursively_optimal(P, R, graph, 0.9)
    best = hierarchically_optimal(P, R, graph, 0.9)
    polled = polled_values(P, R, graph, solved.choice, 0.9)
    assert (solved.value[-1] <= best + 1e-5).all()
    assert (best <= flat + 1e-5).all()
    assert (solved.value[-1] <= polled + 1e-5).all()
    assert (polled <= flat + 1e-5).all()
    assert float(jnp.max(best - solved.value[-1])) > 1e-4  # it is not the same
    assert polled_policy(graph, solved.choice).shape == (104,)


def test_a_graph_without_subtasks_is_the_flat_task(rooms):
    P, R, _ = rooms
    goal = np.asarray(tabular.absorbing(P))
    actions = ("up", "down", "left", "right")
    graph = task_graph(104, actions, {"Root": Subtask({a: Child(a) for a in actions}, goal)})
    flat = tabular.value_iteration(P, R, 0.9, 1e-7)
    solved = recursively_optimal(P, R, graph, 0.9)
    assert_close(solved.value[-1], flat)
    assert_close(hierarchically_optimal(P, R, graph, 0.9), flat)
    assert_close(polled_values(P, R, graph, solved.choice, 0.9), flat)
    after = 0.9 * jnp.einsum("sat,t->as", P, flat)
    assert_close(solved.completion[0], jnp.where(goal, 0.0, after))


def test_values_are_those_of_walks(rooms):
    """The recursively optimal policy, run on a stack: discounted returns have the exact mean."""
    P, R, graph = rooms
    choice = np.asarray(recursively_optimal(P, R, graph, 0.9).choice)
    exact = np.asarray(hierarchical_values(P, R, graph, choice, 0.9).value[-1])
    cumulative, R = np.cumsum(np.asarray(P, np.float64), axis=2), np.asarray(R)
    rng, start, returns = np.random.default_rng(0), cell_index(1, 1), []
    for _ in range(500):
        s, stack, total, discount = int(start), [len(graph.slots) - 1], 0.0, 1.0
        while stack:
            node = graph.child[s, stack[-1], choice[stack[-1], s]]
            if node >= graph.num_actions:
                stack.append(node - graph.num_actions)
                continue
            after = min(int(np.searchsorted(cumulative[s, node], rng.random())), 103)
            total, discount, s = total + discount * R[s, node], discount * 0.9, after
            while stack and graph.terminal[s, stack[-1]]:
                stack.pop()
        returns.append(total)
    # a reward is paid as an expectation here: its variance is smaller than the episode's, its mean the same
    np.testing.assert_allclose(np.mean(returns), exact[start], atol=4 * np.std(returns) / np.sqrt(len(returns)))


def test_polled_policy_can_be_jitted(rooms):
    graph = rooms[-1]
    policy = jax.jit(lambda choice: polled_policy(graph, choice))(jnp.zeros((len(graph.slots), 104), int))
    assert int(policy.max()) < 4
