"""Tabular Q-learning: the textbook's update, the exact first episode, convergence, and what a user gets wrong."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs.four_rooms import G1, G2, NONE, NUM_CELLS, FourRooms, cell_index, four_rooms_tasks
from jaxrl_envs.tasks import single
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.train import Evaluation, RunConfig, init_seeds
from jaxrl_hier.exact import tabular
from jaxrl_hier.flat import q_learning
from jaxrl_hier.flat.q_learning import Config
from jaxrl_hier.learning.tables import epsilon_greedy, observed_model
from tests.close import assert_close
from tests.compiling import optimised_jit

CORNER = int(cell_index(1, 1))


@pytest.fixture(scope="module")
def env():
    return FourRooms()


@pytest.fixture(scope="module")
def uniform_start(env):
    return single(env.default_params.replace(start=np.int32(NONE)))


def trace(algorithm, env, tasks, state, steps):
    """The parameters after `steps` steps and the transitions [steps, B, ...] that they learned from."""

    def step(state, _):
        _, transitions = rollout(env, algorithm.agent, tasks, state.params, state.world, 1)
        return algorithm.step(state)[0], jax.tree.map(lambda x: x[0], transitions)

    state, transitions = optimised_jit(lambda s: jax.lax.scan(step, s, length=steps))(state)
    return jax.device_get((state.params, transitions))


# Choice


def test_choice_is_uniform_over_the_best_or_with_epsilon_over_all():
    values = jnp.array([1.0, 2.0, 2.0, 3.0, 2.0])
    allowed = jnp.array([True, True, True, False, True])
    draws = jax.random.uniform(jax.random.key(0), (100_000, 2))
    chosen = jax.vmap(lambda d: epsilon_greedy(d, values, allowed, 0.2))(draws)
    share = np.bincount(chosen, minlength=5) / len(chosen)
    expected = np.array([0.05, 0.05 + 0.8 / 3, 0.05 + 0.8 / 3, 0.0, 0.05 + 0.8 / 3])
    np.testing.assert_allclose(share, expected, atol=4 * 0.5 / np.sqrt(len(chosen)))
    assert share[3] == 0
    edges = jnp.array([[0.0, 0.0], [0.0, 1 - 2**-23], [1 - 2**-23, 0.0], [1 - 2**-23, 1 - 2**-23]])
    assert jax.vmap(lambda d: epsilon_greedy(d, values, allowed, 0.2))(edges).tolist() == [0, 4, 1, 4]


@pytest.mark.parametrize(("goal", "steps"), [(G1, 697.7), (G2, 805.7)])
def test_first_episode_is_a_random_walk(env, goal, steps, first_lengths):
    lengths = first_lengths[int(cell_index(*goal))]
    assert abs(lengths.mean() - steps) < 3 * lengths.std() / np.sqrt(len(lengths))


@pytest.fixture(scope="module")
def first_lengths(env):
    """The first episodes' lengths of 1000 learners, by goal; Q is zero until they end."""
    algorithm = q_learning.make(Config(recorded_episodes=1), env, four_rooms_tasks(env, [G1, G2]))
    unfinished = lambda state: jnp.any(state.memory.count == 0)
    play = optimised_jit(lambda state: jax.lax.while_loop(unfinished, lambda s: jax.vmap(algorithm.step)(s)[0], state))
    state = play(init_seeds(algorithm, RunConfig(seeds=1000)))
    goals = state.world.task.goal[:, 0]
    return {int(goal): np.asarray(state.memory.lengths[goals == goal, 0, 0]) for goal in np.unique(goals)}


# Learning


@pytest.mark.parametrize("environments", [1, 3])
def test_updates_are_the_textbooks(env, uniform_start, environments):
    task = uniform_start.sample(None).replace(max_steps_in_episode=60)  # some episodes reach the goal, some the limit
    config = Config(step_size=0.3, epsilon=0.3, initial_value=0.5, environments=environments)
    algorithm = q_learning.make(config, env, single(task))
    learned, t = trace(algorithm, env, single(task), algorithm.init(jax.random.key(1)), 1500)
    assert t.terminated.any()
    assert t.truncated.any()
    q = np.full((NUM_CELLS, 4), 0.5)
    for i, b in np.ndindex(t.reward.shape):
        s, a, following = t.obs[i, b], t.action[i, b], q[t.next_obs[i, b]].max()
        target = t.reward[i, b] + (0.0 if t.terminated[i, b] else config.discount * following)
        q[s, a] += config.step_size * (target - q[s, a])
    assert_close(learned, q)


def test_converges_to_the_optimal_values(env, uniform_start):
    """Uniformly random actions, falling step sizes: within 0.03 of Q* everywhere, within 0.01 on average."""
    config = Config(epsilon=1.0, recorded_episodes=0)

    @optimised_jit
    def run(state, step_size):
        step = q_learning.make(replace(config, step_size=step_size), env, uniform_start).step
        return jax.lax.fori_loop(0, 100_000, lambda _, s: jax.vmap(step)(s)[0], state)

    algorithm = q_learning.make(config, env, uniform_start)
    state = init_seeds(algorithm, RunConfig(seeds=8))
    for step_size in (0.2, 0.05, 0.0125):
        state = run(state, step_size)
    P, R = env.model(env.default_params)
    exact = tabular.action_values(P, R, tabular.value_iteration(P, R, 0.9), 0.9)
    goal = int(cell_index(*G1))
    error = np.delete(np.abs(state.params.mean(0) - exact), goal, axis=0)
    assert error.max() < 0.03
    assert error.mean() < 0.01

    measured = Evaluation(algorithm)(state)
    assert {name: m.axes for name, m in measured.items()} == {
        "steps": ("seed", "environment"),
        "best_steps": ("seed", "environment"),
        "start_value": ("seed", "environment"),
        "best_start_value": ("seed", "environment"),
        "steps_from": ("seed", "environment", "state"),
        "value": ("seed", "environment", "state"),
    }
    fewest = np.asarray(tabular.minimal_expected_steps(P))
    assert (measured["steps_from"].values >= fewest - 1e-2).all()
    np.testing.assert_allclose(measured["steps_from"].values[:, 0, CORNER], fewest[CORNER], rtol=0.03)


def test_evaluation_of_a_known_table(env):
    P, R = env.model(env.default_params)
    exact = tabular.action_values(P, R, tabular.value_iteration(P, R, 0.9), 0.9)
    algorithm = q_learning.make(Config(discount=1.0, recorded_episodes=2), env, single(env.default_params))
    state = algorithm.init(jax.random.key(0))
    evaluate = jax.jit(algorithm.evaluate)
    measured = evaluate(replace(state, params=exact), jax.random.key(0))
    assert measured["steps"].values == pytest.approx(25.86, abs=0.01)  # of the best policy with γ = 0.9
    assert measured["best_steps"].values == pytest.approx(25.80, abs=0.01)
    assert measured["start_value"].values == pytest.approx(1.0, abs=1e-4)
    assert measured["best_start_value"].values == pytest.approx(1.0, abs=1e-4)
    others = np.arange(NUM_CELLS) != cell_index(*G1)
    np.testing.assert_allclose(measured["value"].values[0], others, atol=1e-4)  # undiscounted: the goal is certain
    assert measured["training_length"].axes == ("environment", "episode")
    assert measured["training_length"].values.tolist() == [[0, 0]]
    measured = evaluate(state, jax.random.key(0))  # a table of zeros is the random walk
    assert measured["steps"].values == pytest.approx(697.7, abs=0.1)


def test_a_model_that_is_no_method_is_left_alone():
    env = FourRooms()
    env.model = np.zeros((3, 3))
    assert not observed_model(env)


def test_environment_without_a_model_is_played():
    class Unknown:
        """Four rooms, its model hidden."""

        def __init__(self):
            self.env = FourRooms()
            self.default_params = self.env.default_params.replace(max_steps_in_episode=50)

        def __getattr__(self, name):
            if name == "model":
                raise AttributeError(name)
            return getattr(self.env, name)

    env = Unknown()
    algorithm = q_learning.make(Config(), env, single(env.default_params))
    P, R = env.env.model(env.default_params)
    exact = tabular.action_values(P, R, tabular.value_iteration(P, R, 0.9), 0.9)
    state = replace(algorithm.init(jax.random.key(0)), params=exact)
    measured = jax.jit(algorithm.evaluate)(state, jax.random.key(0))
    assert measured["steps"].axes == measured["return"].axes == ("environment", "episode")
    steps, returns = measured["steps"].values[0], measured["return"].values[0]
    assert abs(steps.mean() - 25.8) < 4 * steps.std() / np.sqrt(len(steps))
    assert returns.mean() > 0.9
    assert (steps[returns == 0] == 50).all()


# What a user can get wrong


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": 1.5}, r"step_size must lie in \[0, 1\], got 1.5"),
        ({"epsilon": -0.1}, r"epsilon must lie in \[0, 1\], got -0.1"),
        ({"discount": 2}, r"discount must lie in \[0, 1\], got 2"),
        ({"environments": 0}, "environments must be positive, got 0"),
        ({"recorded_episodes": -1}, "recorded_episodes must be at least 0, got -1"),
    ],
)
def test_bad_settings(env, settings, message):
    with pytest.raises(UsageError, match=message):
        q_learning.make(Config(**settings), env, single(env.default_params))


def test_wants_discrete_spaces():
    env = FourRooms(observation="one_hot")
    with pytest.raises(
        UsageError, match="needs discrete observations and actions, such as those of four-rooms; FourRooms has Box"
    ):
        q_learning.make(Config(), env, single(env.default_params))
    navigation, tasks = jaxrl_envs.make("navigation2d")
    with pytest.raises(UsageError, match="has Box observations"):
        q_learning.make(Config(), navigation, tasks)
