"""MAXQ against a recursion in plain Python, exact values, and the returns that these predict."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.four_rooms import FourRooms, cell_index, four_rooms_tasks
from jaxrl_envs.tasks import single
from jaxrl_envs.taxi import IN_TAXI, Taxi, encode
from jaxrl_hier.abstractions.task_graph import Child, Subtask, task_graph
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import first_episode, play_episodes
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.engine.types import ActInput
from jaxrl_hier.exact.hierarchy import recursively_optimal
from jaxrl_hier.hierarchical.graphs import rooms_graph, taxi_graph
from jaxrl_hier.hierarchical.maxq import (
    Config,
    Pending,
    Stack,
    Values,
    entries_to_update,
    evaluate_graph,
    make,
)
from tests.close import assert_close
from tests.compiling import optimised_jit, quick_jit
from tests.probes import Corridor, way_out


@pytest.fixture(scope="module")
def fickle():
    env = Taxi(noise=True, fickle=True)
    return env, taxi_graph(env)


# --- the paper's recursion, on what an agent went through ----------------------------------------------------------


class Step(NamedTuple):
    state: int
    calls: list  # (subtask, slot, node) from the root down
    fresh: int  # from which place of the stack on they were called in this step
    reward: float
    after: int
    terminated: bool
    truncated: bool


class Reference:
    """MAXQ-Q as in the paper, by recursion; choices are read from the recorded steps."""

    def __init__(self, config, graph):
        self.config, self.graph = config, graph
        self.C = np.full((graph.completions + 1, 2), config.initial_value)
        self.C[-1] = 0
        self.V = np.full(graph.rewards, config.initial_value)
        self.cooled = np.zeros(graph.family.max() + 1, int)

    def value(self, node, s):
        if node < self.graph.num_actions:
            return self.V[self.graph.reward_entry[s, node]]
        return self.best(node - self.graph.num_actions, s)[1]

    def best(self, i, s):
        """Q̃ and Q of the best child by Q̃."""
        options = []
        for k, node in enumerate(self.graph.child[s, i]):
            if node >= 0:
                options.append(self.C[self.graph.entry[s, i, k]] + self.value(node, s))
        return max(options, key=lambda q: q[0])

    def run(self, steps):
        at = 0
        while at < len(steps):
            at = self.execute(len(self.graph.slots) - 1, 0, steps, at)[0]

    def execute(self, i, place, steps, at):
        """Execute subtask i from step `at` on: the step after its end, its states (last first), whether it ended."""
        graph, config, sequence = self.graph, self.config, []
        while True:
            if at == len(steps):
                return at, sequence, False
            s = steps[at].state
            _, slot, node = steps[at].calls[place]
            if node < graph.num_actions:
                step, seen = steps[at], [s]
                entry = graph.reward_entry[s, node]
                self.V[entry] += config.step_size * (step.reward - self.V[entry])
                at, ended = at + 1, True
            else:
                at, seen, ended = self.execute(node - graph.num_actions, place + 1, steps, at)
            last = steps[at - 1]
            ended = ended and not (last.terminated and graph.interrupted[last.after, i])
            over = last.terminated or graph.terminal[last.after, i]
            if ended:
                if over:
                    target = np.array([graph.pseudo_reward[last.after, i] * (config.variant == "maxq-q"), 0.0])
                else:
                    target = self.best(i, last.after).copy()
                states = seen if config.all_states else [seen[-1]]
                discount = 1.0 if config.all_states else config.discount ** (len(seen) - 1)
                for s in states:
                    discount *= config.discount
                    entry = graph.entry[s, i, slot]
                    if graph.child[s, i, slot] == node and entry < graph.completions:
                        self.C[entry] += config.step_size * (discount * target - self.C[entry])
            sequence = seen + sequence
            if over and ended:
                self.cooled[graph.family[i]] += graph.goal[last.after, i]
                return at, sequence, True
            if last.truncated or at == len(steps) or (not ended) or steps[at].fresh < place:
                return at, sequence, False  # control goes back to the root


def record(algorithm, graph, count, seed):
    """`count` steps of one learner, and its values after them; the algorithm takes one step per iteration."""
    step, state = quick_jit(algorithm.step), quick_jit(algorithm.init)(jax.random.key(seed))
    steps, calls = [], []
    for _ in range(count):
        before = state
        state, metrics = step(state)
        lesson = jax.tree.map(lambda x: np.asarray(x)[0], state.memory.lesson)
        stack = lesson.stack
        depth = int(stack.depth)
        calls = [tuple(int(x[p]) for x in stack[:3]) for p in range(depth)]
        fresh = min(p for p in range(depth) if stack.start[p] == stack.time)
        ended = int(metrics["return"].count) > 0
        reward = (
            metrics["return"].total - before.world.ep_return[0]
            if ended
            else (state.world.ep_return[0] - before.world.ep_return[0])
        )
        terminated = bool(graph.terminal[int(lesson.arrived), -1])  # as the task says, not the learner
        steps.append(
            Step(
                int(before.world.inp.obs[0]),
                calls,
                fresh,
                float(reward),
                int(lesson.arrived),
                terminated,
                ended and not terminated,
            )
        )
    return steps, state


def rooms():
    env = FourRooms()
    tasks = four_rooms_tasks(env, [(9, 9)], "uniform")
    return env, tasks, rooms_graph(env, int(cell_index(9, 9)))


def corridor_graph(interrupted=False, nested=False):
    """Back to the left end, or out by the right one; Root calls either. Back is not over where the episode ends, or is
    interrupted there; it is over in the fourth place, for which it pays a pseudo-reward. Nested, it moves by Hop, which
    is over there and not interrupted."""
    states, moves = np.arange(6), {"left": Child("left"), "right": Child("right")}
    cut = interrupted & (states == 5)
    hop = {"Hop": Subtask(moves, (states % 3 == 0) | (states == 5))} if nested else {}
    subtasks = hop | {
        "Back": Subtask(
            {"Hop": Child("Hop")} if nested else moves, (states % 3 == 0) | cut, states == 0, -2.0, interrupted=cut
        ),
        "Out": Subtask(moves, states == 5),
        "Root": Subtask({"Back": Child("Back"), "Out": Child("Out")}, states == 5),
    }
    env = Corridor()
    return env, task_graph(6, ("left", "right"), subtasks, possible=np.asarray(env.model(None)[0]) > 0)


CONFIGS = {
    "taxi": Config(),
    "taxi, polled": Config(polling_interval=3.0),
    "taxi, plain": Config(state_abstraction=False, all_states=False, variant="maxq-0"),
    "rooms": Config(discount=0.9, temperature=0.1, chunk=3),
    "rooms, no all-states": Config(discount=0.9, temperature=0.1, all_states=False),
    "corridor": Config(discount=0.9, temperature=1.0),
    "corridor, plain": Config(discount=0.9, temperature=1.0, variant="maxq-0"),
    "corridor, interrupted": Config(discount=0.9, temperature=1.0),
    "corridor, nested, interrupted": Config(discount=0.9, temperature=1.0),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_learns_as_the_recursion_does(name):
    config = replace(CONFIGS[name], rollout_length=1)
    if name.startswith("taxi"):
        env = Taxi(noise=True, fickle=True)
        graph = taxi_graph(env, config.state_abstraction)
        tasks = single(env.default_params.replace(max_steps_in_episode=150))
    elif name.startswith("corridor"):
        env, graph = corridor_graph(interrupted=name.endswith("interrupted"), nested="nested" in name)
        tasks = single(env.default_params.replace(max_steps_in_episode=9))
    else:
        env, tasks, graph = rooms()
    algorithm = make(config, env, tasks, graph)
    steps, state = record(algorithm, graph, 300 if name.startswith("corridor") else 1000, seed=1)
    reference = Reference(config, graph)
    reference.run(steps)
    assert_close(state.params.completion, reference.C[:-1])
    assert_close(state.params.reward, reference.V)
    learned = np.abs(reference.C[:-1] - config.initial_value).max(1) > 0
    assert learned.sum() > min(50, graph.completions / 2)  # it is about something
    cooling = [graph.cooling[list(graph.family).index(f)] for f in range(len(reference.cooled))]
    assert_close(state.params.temperature, config.temperature * np.array(cooling) ** reference.cooled, 1e-4)


def test_a_caller_learns_nothing_where_it_would_have_called_another_child(fickle):
    """Put navigates to where the passenger wants to go, who changes his mind after two steps: the third state is one
    for another Navigate."""
    graph = taxi_graph(fickle[0], abstraction=False)
    put = graph.nodes.index("Put") - graph.num_actions
    states = np.array([encode(2, 0, IN_TAXI, 0), encode(2, 1, IN_TAXI, 0), encode(2, 2, IN_TAXI, 1)])
    slot = int(np.flatnonzero(graph.child[states[0], put] >= graph.num_actions)[0])
    child = graph.child[states, put, slot]
    assert child[0] == child[1] != child[2]
    stack = Stack(*(jnp.array([x]) for x in (put, slot, child[0], 0)), *map(jnp.array, (1, 3, 2)))
    pending = Pending(stack, *map(jnp.array, (0, 0, (0.0, 0.0), 0, False)))
    entries, _ = entries_to_update(Config(chunk=3, history_length=3), graph, pending, jnp.asarray(states))
    last_first = graph.entry[states[::-1], put, slot]
    assert entries.tolist() == [graph.completions, *last_first[1:]]


def test_the_state_of_a_call_that_has_been_overwritten_is_not_learned_from(fickle):
    """Without all-states updating, which needs it, of a child that ran for longer than the history."""
    graph = taxi_graph(fickle[0], abstraction=False)
    root = graph.nodes.index("Root") - graph.num_actions
    called = int(np.argmax(graph.child[0, root] >= graph.num_actions))
    stack = Stack(
        *(jnp.array([x]) for x in (root, called, graph.child[0, root, called], 0)), *map(jnp.array, (1, 4, 4))
    )
    for length, learned in ((5, graph.entry[0, root, called]), (4, graph.completions)):
        pending = Pending(stack, *map(jnp.array, (0, 0, (0.0, 0.0), 0, False)))
        history = jnp.zeros(length, jnp.int32)
        entries, finished = entries_to_update(
            Config(chunk=1, history_length=length, all_states=False), graph, pending, history
        )
        assert entries.tolist() == [learned]
        assert finished


@pytest.mark.parametrize("name", ["taxi", "rooms"])
def test_values_are_those_of_the_recursion(name, fickle):
    """For random tables, the values of every subtask in every state are those of the recursion."""
    graph = fickle[1] if name == "taxi" else rooms()[2]
    reference, rng = Reference(Config(), graph), np.random.default_rng(0)
    reference.C[:-1], reference.V = rng.normal(size=(graph.completions, 2)), rng.normal(size=graph.rewards)
    values = Values(jnp.float32(reference.C[:-1]), jnp.float32(reference.V), jnp.zeros(1), jnp.zeros(()))
    states = len(graph.child)
    found = jax.device_get(jax.jit(jax.vmap(lambda s: evaluate_graph(graph, values, s)))(jnp.arange(states)))
    for s, i in np.argwhere((graph.child >= 0).any(2)):
        q_inside, value = reference.best(i, s)
        assert_close(found.value[s, graph.num_actions + i], value, scale=10)
        assert_close(found.inside[s, i, found.best[s, i]], q_inside, scale=10)
    assert np.array_equal(found.inside > -np.inf, graph.child >= 0)


# --- exact values ----------------------------------------------------------------------------------------------------


def exact_q(env, params, graph, gamma=1.0):
    """Q(i, s, a) [M, K, S], NaN where a cannot be called."""
    P, R = env.model(params)
    solved = jax.device_get(recursively_optimal(P, R, graph, gamma))
    called = np.moveaxis(graph.child, 0, 2)
    q = solved.value[called, np.arange(called.shape[2])] + solved.completion
    return np.where(called >= 0, q, np.nan), solved


def test_learned_values_of_taxi_are_the_exact_ones():
    """Q(i, s, a) = V(a, s) + C(i, s, a) is exact in every subtask and state, after enough exploration."""
    env = Taxi()
    graph = taxi_graph(env)
    # exploring for ever, and often back at the root, or Put would seldom choose in the middle of nowhere
    warm = graph._replace(cooling=np.ones_like(graph.cooling))
    algorithm = make(
        Config(rollout_length=500, temperature=20.0, polling_interval=5.0), env, single(env.default_params), warm
    )
    state, _, _ = optimised_jit(make_chunk(algorithm, 600))(init_seeds(algorithm, RunConfig()))
    q, solved = exact_q(env, env.default_params, graph)
    values = jax.tree.map(lambda x: x[0], state.params)
    learned = jax.vmap(lambda s: evaluate_graph(graph, values, s))(jnp.arange(504))
    live = ~np.isnan(q) & ~env.ended
    error = np.abs(np.moveaxis(np.asarray(learned.q), 0, 2) - q)[live]
    assert error.size == 9160
    assert error.max() < 0.2
    assert error.mean() < 1e-3
    running = ~graph.terminal & ~env.ended[:, None]
    of_subtasks = np.asarray(learned.value)[:, graph.num_actions :]
    assert_close(of_subtasks[running], solved.value[graph.num_actions :].T[running], 1e-4)


def perfect(graph, solved, observed):
    """Values that hold the exact solution of a graph without abstraction; any one of the states that look alike."""
    completion, reward = np.zeros((graph.completions, 2), np.float32), np.zeros(graph.rewards, np.float32)
    for s, seen in enumerate(observed):
        for i, k in np.ndindex(graph.child.shape[1:]):
            if graph.child[seen, i, k] >= 0:
                completion[graph.entry[seen, i, k]] = solved.inside[i, k, s], solved.completion[i, k, s]
        reward[graph.reward_entry[seen]] = solved.value[: graph.num_actions, s]
    families = int(graph.family.max()) + 1
    return Values(jnp.asarray(completion), jnp.asarray(reward), jnp.zeros(families), jnp.array(500.0))


def test_greedy_episodes_earn_the_predicted_returns(fickle):
    """Greedy returns, with the parameter bound at the call and with polling, are 3.514 and 5.565."""
    env, _ = fickle
    graph = taxi_graph(env, abstraction=False)
    P, R = env.model(env.default_params)
    solved = recursively_optimal(P, R, graph, observed=env.observation_of_state)
    values = perfect(graph, jax.device_get(solved), env.observation_of_state)
    agent = make(Config(), env, single(env.default_params), graph).agent

    @optimised_jit
    def returns(values, key):
        seen = play_episodes(env, agent, env.default_params, values, key, episodes=4000, horizon=120, greedy=True)
        return jnp.sum(seen.reward * first_episode(seen), axis=0)

    for interval, expected in ((500.0, 3.514), (1.0, 5.565)):
        earned = returns(values._replace(interval=jnp.array(interval)), jax.random.key(3))
        np.testing.assert_allclose(earned.mean(), expected, atol=3.5 * float(earned.std()) / np.sqrt(4000))


# --- the stack -------------------------------------------------------------------------------------------------------


def test_navigate_keeps_its_target_and_polling_lets_it_go(fickle):
    env, graph = fickle
    agent = make(Config(), env, single(env.default_params)).agent
    values = agent.init(jax.random.key(0))
    # make Put prefer Navigate everywhere
    i, k = graph.slot("Put", "put down")
    values = values._replace(completion=values.completion.at[graph.entry[:500, i, k].ravel()].set(-50.0))
    see = lambda s, first: ActInput(jnp.int32(s), jnp.int32(0), jnp.zeros(()), jnp.array(first))
    act = jax.jit(lambda values, carry, inp: agent.act(values, carry, inp, jax.random.key(1), True))
    carry = agent.start(values, jax.random.key(0))
    _, stack, _ = act(values, carry, see(encode(2, 2, 4, 1), True))
    target = lambda stack: graph.nodes[int(stack.child[1])]
    assert target(stack) == "Navigate(G)"
    assert int(stack.depth) == 3
    _, kept, _ = act(values, stack, see(encode(2, 1, 4, 2), False))
    assert target(kept) == "Navigate(G)"
    assert (int(kept.since), int(kept.time), kept.start.tolist()) == (2, 1, [0, 0, 1])
    _, polled, _ = act(values._replace(interval=jnp.array(1.0)), stack, see(encode(2, 1, 4, 2), False))
    assert target(polled) == "Navigate(Y)"
    assert (int(polled.since), polled.start.tolist()) == (1, [1, 1, 1])
    _, arrived, _ = act(values, stack, see(encode(0, 4, 4, 2), False))  # at G, and he wants to go elsewhere by now
    assert target(arrived) == "Navigate(Y)"
    assert arrived.start.tolist() == [0, 1, 1]


def test_choices_are_boltzmann_and_independent():
    """Root and the subtasks that it calls choose by Q̃, each at its own temperature."""
    env, graph = corridor_graph()
    agent, rng, count = make(Config(), env, single(env.default_params), graph).agent, np.random.default_rng(0), 40_000
    values = agent.init(jax.random.key(0))._replace(
        completion=jnp.asarray(rng.normal(size=(graph.completions, 2)), jnp.float32),
        temperature=jnp.array([0.5, 1.0, 2.0]),
    )
    assert graph.family.tolist() == [0, 1, 2]
    inp = ActInput(jnp.int32(2), jnp.int32(0), jnp.zeros(()), jnp.array(True))
    start = agent.start(values, jax.random.key(0))
    act = quick_jit(jax.vmap(lambda key: agent.act(values, start, inp, key, False)[:2]))
    actions, stack = act(jax.random.split(jax.random.key(1), count))
    assert (stack.depth == 2).all()
    now = evaluate_graph(graph, values, jnp.int32(2))
    back, out, root = (np.asarray(jax.nn.softmax(now.inside[i] / (0.5, 1.0, 2.0)[i])) for i in range(3))
    expected = root[:, None] * np.stack([back, out])
    seen = np.bincount(stack.slot[:, 0] * 2 + actions, minlength=4).reshape(2, 2) / count
    assert_close(seen, expected, 4.5 * 0.5 / count**0.5, scale=1)
    np.testing.assert_array_equal(stack.child[:, 0], 2 + stack.slot[:, 0])
    np.testing.assert_array_equal(stack.child[:, 1], actions)


def test_evaluation_is_greedy_and_its_key_counts():
    """Root slightly prefers Out to Back, and Out slightly prefers right: greedily this is the shortest path."""
    env, graph = corridor_graph()
    algorithm = make(Config(eval_episodes=32), env, single(env.default_params), graph)
    state = algorithm.init(jax.random.key(0))
    liked = np.concatenate([graph.entry[:, i, k] for i, k in (graph.slot("Out", "right"), graph.slot("Root", "Out"))])
    completion = jnp.zeros_like(state.params.completion).at[liked].set(0.1)
    state = replace(state, params=state.params._replace(completion=completion, reward=0 * state.params.reward))
    evaluate = quick_jit(algorithm.evaluate)
    one, again, other = (evaluate(state, jax.random.key(k)) for k in (1, 1, 2))
    steps = np.asarray(one["steps"].values)[0].astype(int)
    assert set(steps) == {1, 2, 3, 4, 5}
    assert_close(one["return"].values[0], [way_out(5 - n, n) for n in steps])
    assert one["ended"].values.all()
    np.testing.assert_array_equal(one["steps"].values, again["steps"].values)
    assert (one["steps"].values != other["steps"].values).any()
    short = make(Config(eval_episodes=32, eval_horizon=2), env, single(env.default_params), graph)
    cut = quick_jit(short.evaluate)(state, jax.random.key(1))
    np.testing.assert_array_equal(cut["steps"].values[0], np.minimum(steps, 2))
    np.testing.assert_array_equal(cut["ended"].values[0], steps <= 2)


def test_interval_falls_with_successful_trials():
    env = Taxi()
    algorithm = make(
        Config(polling_interval=20.0, polling_interval_decrease=2.0, temperature=1e-3), env, single(env.default_params)
    )
    step, state = jax.jit(algorithm.step), algorithm.init(jax.random.key(0))
    first, intervals = None, []
    for _ in range(10):
        state, metrics = step(state)
        first = int(metrics["return"].count) if first is None else first  # none is cut: the limit is 500 steps
        intervals.append(float(state.params.interval))
    assert intervals == sorted(intervals, reverse=True)
    assert intervals[-1] == 1.0
    assert intervals[0] == max(20 - 2 * first, 1)


@pytest.mark.rounding
def test_chunk_changes_nothing():
    env = Taxi(noise=True)
    final = []
    for chunk in (1, 8):
        algorithm = make(Config(chunk=chunk, rollout_length=300), env, single(env.default_params))
        final.append(jax.jit(algorithm.step)(algorithm.init(jax.random.key(2)))[0])
    assert_close(final[0].params.completion, final[1].params.completion)
    assert np.array_equal(final[0].world.inp.obs, final[1].world.inp.obs)


def test_greedy_evaluation_of_a_learned_taxi():
    env = Taxi()
    algorithm = make(Config(rollout_length=1000), env, single(env.default_params))
    state, _, _ = optimised_jit(make_chunk(algorithm, 40))(init_seeds(algorithm, RunConfig(seeds=2)))
    measured = jax.jit(jax.vmap(algorithm.evaluate))(state, jax.random.split(jax.random.key(0), 2))
    assert measured["return"].axes == ("environment", "episode")
    earned, steps, ended = (np.asarray(measured[name].values) for name in ("return", "steps", "ended"))
    assert ended.mean() > 0.98
    assert_close(earned[ended], 20 - steps[ended])  # no illegal action: every step costs one, delivery pays 20
    np.testing.assert_allclose(earned[ended].mean(), 8.555, atol=4 * earned[ended].std() / np.sqrt(ended.sum()))


# --- settings --------------------------------------------------------------------------------------------------------


def test_numbers_may_be_traced():
    env = Taxi()
    tasks = single(env.default_params)

    def learned(step_size):
        algorithm = make(Config(step_size=step_size, rollout_length=50), env, tasks)
        return algorithm.step(algorithm.init(jax.random.key(0)))[0].params.completion

    both = jax.jit(jax.vmap(learned))(jnp.array([0.25, 0.5]))
    assert_close(both[1], jax.jit(learned)(0.5))
    assert not np.array_equal(both[0], both[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": 2.0}, r"step_size must lie in \[0, 1\], got 2"),
        ({"discount": -0.1}, "discount must lie in"),
        ({"variant": "maxq"}, "variant must be one of maxq-q, maxq-0, got 'maxq'"),
        ({"polling_interval": 0.5}, "polling_interval must be at least 1, got 0.5"),
        ({"polling_interval_decrease": -1.0}, "polling_interval_decrease must be at least 0"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"rollout_length": 0}, "rollout_length must be positive"),
        ({"env": "navigation2d"}, "a table needs discrete observations"),
        ({"env": "CartPole-v1"}, "a table needs discrete observations"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        jaxrl_hier.make("maxq", **settings)


def test_graphs_must_fit():
    env, tasks = jaxrl_envs.make("taxi")
    states = np.arange(4)
    small = task_graph(4, ("left", "right"), {"Root": Subtask({"left": Child("left")}, states == 3)})
    with pytest.raises(UsageError, match=r"graph has \(states, actions\) = \(4, 2\), .* has \(504, 6\)"):
        make(Config(), env, tasks, small)
    rooms_env = FourRooms()
    moving = four_rooms_tasks(rooms_env, [(9, 9), (3, 3)], resample="episode")
    with pytest.raises(UsageError, match="built for one goal"):
        make(Config(), rooms_env, moving)
    with pytest.raises(UsageError, match=r"needs a task graph, and .* has none of its own"):
        make(Config(), NoGraph(), single(NoGraph().default_params))


class NoGraph:
    name = "NoGraph"
    default_params = ()
    observation_space = staticmethod(lambda params: __import__("gymnax").environments.spaces.Discrete(4))
    action_space = observation_space
