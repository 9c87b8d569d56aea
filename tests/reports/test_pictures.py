"""What pictures of learned states show, against exact values and cases made by hand."""

from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from PIL.GifImagePlugin import GifImageFile

import jaxrl_envs
from jaxrl_envs.contract import EnvCheckError
from jaxrl_envs.four_rooms import FourRooms, FourRoomsGoals
from jaxrl_envs.rendering import COLORS, frame_of, renders
from jaxrl_envs.tasks import single
from jaxrl_envs.trial import Trial
from jaxrl_hier import registry
from jaxrl_hier.abstractions.task_graph import Child, Subtask, task_graph
from jaxrl_hier.engine.adapting import Known
from jaxrl_hier.engine.types import Agent, Algorithm, Player, TrainState
from jaxrl_hier.exact import tabular
from jaxrl_hier.goals.uvfa import backup, exact_values
from jaxrl_hier.hierarchical import option_critic, option_ppo
from jaxrl_hier.hierarchical.fun import Config as FunConfig
from jaxrl_hier.hierarchical.maxq import Stack, Values
from jaxrl_hier.pictures import Trained, episode, fun, maxq, tables, uvfa
from jaxrl_hier.pictures import options as option_pictures
from jaxrl_hier.pictures.animation import LARGEST, save_gif
from tests.close import assert_close

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


# Values of cells


def test_maps_of_a_table_are_the_exact_values():
    env = FourRoomsGoals(observation="index")
    P = jnp.asarray(env.transitions)
    exact = exact_values(P, 0.9)
    q = backup(P, exact, 0.9)  # [S, A, G]
    look_up = lambda params, obs, goal: params[obs["observation"], :, goal]
    goals = jnp.array([0, 50, 103])
    values, policy = uvfa.maps(look_up, q, env, goals)
    assert_close(values, exact[:, goals].T, 1e-5)
    for i, goal in enumerate(goals):
        np.testing.assert_allclose(policy[i].sum(axis=1), 1.0, rtol=1e-6)
        assert np.all(q[:, :, goal][np.asarray(policy[i]) > 0] >= values[i].min())
        worth = jnp.sum(policy[i] * q[:, :, goal], axis=1)
        assert_close(worth, exact[:, goal], 1e-5)


def test_goals_on_either_side():
    env, tasks = jaxrl_envs.make("four-rooms-goals")
    known, held_out = uvfa.goals_of(Trained(None, env, tasks, None, None))
    assert set(held_out.tolist()) <= set(np.asarray(tasks.test.goal).tolist())
    assert not set(known.tolist()) & set(np.asarray(tasks.test.goal).tolist())
    assert len(known) == len(held_out) == 3


def test_the_greedy_policy_of_a_table():
    q = jnp.array([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    values, policy = tables.values_and_policy(q)
    np.testing.assert_array_equal(values, [3, 0, 2])
    np.testing.assert_array_equal(policy, [[0, 0.5, 0.5], [0, 0, 0], [1, 0, 0]])


def test_values_of_four_rooms(tmp_path):
    class Settings(NamedTuple):
        discount: float = 0.9

    class Learned(NamedTuple):
        params: jax.Array
        world: object

    class World(NamedTuple):
        task: object

    env = FourRooms()
    P, R = env.model(env.default_params)
    values = tabular.value_iteration(P, R, 0.9)
    q = R + 0.9 * jnp.einsum("sat,t->sa", P, values)
    assert_close(tables.values_and_policy(q)[0], values, 1e-5)
    world = World(jax.tree.map(lambda x: jnp.asarray(x)[None], env.default_params))
    trained = Trained(Settings(), env, single(env.default_params), None, Learned(q, world))
    (path,) = tables.draw(trained, tmp_path)
    assert path.name == "values.png"
    assert tables.draw(trained._replace(env=jaxrl_envs.make("taxi")[0]), tmp_path) == []


def test_options_of_a_network_as_arrays(tmp_path):
    """Heads start at zero: uniform policies that end in every other step; and the logits are those that act."""
    env, tasks = jaxrl_envs.make("four-rooms-option-critic")
    config = option_critic.Config(num_options=3, hidden=(4,), environments=1, rollout_length=2, temperature=0.5)
    algorithm = option_critic.make(config, env, tasks)
    state = algorithm.init(jax.random.key(0))
    options = option_critic.as_options(config, env, state.params)
    np.testing.assert_array_equal(options.policy, np.full((3, 104, 4), 0.25))
    np.testing.assert_array_equal(options.termination, np.full((3, 104), 0.5))
    params = jax.tree.map(lambda x: x, state.params)
    params["params"]["policies"]["bias"] = jnp.arange(12.0)
    options = option_critic.as_options(config, env, params)
    expected = jax.nn.softmax(jnp.arange(12.0).reshape(3, 4) / 0.5)
    assert_close(options.policy, np.broadcast_to(expected[:, None], (3, 104, 4)), 1e-6)
    (path,) = option_pictures.draw(Trained(config, env, tasks, algorithm, state), tmp_path)
    assert path.name == "options.png"


def test_options_of_ppo_as_arrays(tmp_path):
    """Of a cell, the probabilities of its one-hot row."""
    env, tasks = jaxrl_envs.make("four-rooms-option-critic")
    config = option_ppo.Config(num_options=3, hidden=())
    algorithm = option_ppo.make(config, env, tasks)
    state = algorithm.init(jax.random.key(0))
    options = option_ppo.as_options(config, env, state.params)
    heads = state.params.policy["params"]
    logits, stop = heads["actions"]["kernel"].reshape(104, 3, 4), heads["terminations"]["kernel"]
    assert_close(options.policy, jax.nn.softmax(logits).transpose(1, 0, 2), 1e-6)
    assert_close(options.termination, jax.nn.sigmoid(stop).T, 1e-6)
    (path,) = option_pictures.draw(Trained(config, env, tasks, algorithm, state), tmp_path)
    assert path.name == "options.png"


@pytest.mark.parametrize("name", ["option-critic", "option-ppo"])
def test_options_of_normalised_observations(name, tmp_path):
    """They are drawn, and are those of the networks' own observations: scaled ones."""
    env = FourRooms(observation="coordinates")
    module, tasks = registry.module(name), single(env.default_params)
    config = module.Config(num_options=2, hidden=(4,), normalize_observations=True)
    algorithm = module.make(config, env, tasks)
    state = algorithm.init(jax.random.key(0))
    inputs = state.params.inputs._replace(mean=jnp.array([5.0, 6.0]), variance=jnp.array([4.0, 9.0]))
    params = state.params._replace(inputs=inputs, params=jax.tree.map(lambda x: x + 0.1, state.params.params))
    seen = (jax.vmap(env.encode)(jnp.arange(104)) - inputs.mean) / jnp.array([2.0, 3.0])  # by the networks
    plain = SimpleNamespace(encode=lambda cell: seen[cell], **{k: getattr(env, k) for k in SPACES})
    expected = module.as_options(config, plain, params.params)
    options = module.as_options(config, env, params)
    assert_close(options.policy, expected.policy, 1e-6)
    assert_close(options.termination, expected.termination, 1e-6)
    assert float(jnp.std(options.termination)) > 0
    state = state.replace(params=params)
    (path,) = option_pictures.draw(Trained(config, env, tasks, algorithm, state), tmp_path)
    assert path.name == "options.png"


SPACES = ("observation_space", "action_space", "default_params")


# The task graph


@pytest.fixture(scope="module")
def graph():
    over = np.array([False, True])
    subtasks = {
        "Root": Subtask({"Sub": Child("Sub")}, terminal=over),
        "Sub": Subtask({"go": Child("go"), "stay": Child("stay")}, terminal=over),
    }
    return task_graph(2, ("go", "stay"), subtasks)


def stack_of(*steps):
    """Of (tasks, children, starts, depth, time) of each step."""
    tasks, children, starts, depth, time = map(np.array, zip(*steps))
    return Stack(tasks, tasks, children, starts, depth, time, time)


def test_calls_are_counted_where_they_begin(graph):
    sub, root = graph.subtask("Sub"), graph.subtask("Root")
    go, stay, called = 0, 1, 2 + sub
    stack = stack_of(
        ([root, sub], [called, stay], [0, 0], 2, 0),  # Root calls Sub, Sub calls stay
        ([root, sub], [called, stay], [0, 1], 2, 1),  # Sub calls stay again
        ([root, sub], [called, go], [0, 2], 2, 2),  # Sub calls go
        ([root, sub], [called, go], [3, 3], 2, 3),  # Root calls Sub again
    )
    calls = maxq.calls_of(stack, 2, 4)
    assert calls[root].tolist() == [0, 0, 2, 0]
    assert calls[sub].tolist() == [2, 2, 0, 0]


def test_values_of_subtasks_where_they_are_called(graph):
    """V(Sub) = V(go) + C(Sub, go) = −3 + 5, V(Root) = V(Sub) + C(Root, Sub) = 2 + 10."""
    completion = np.zeros((graph.completions, 2), np.float32)
    completion[graph.entry[0][graph.slot("Sub", "go")]] = 5.0
    completion[graph.entry[0][graph.slot("Sub", "stay")]] = -50.0
    completion[graph.entry[0][graph.slot("Root", "Sub")]] = 10.0
    reward = np.zeros(graph.rewards, np.float32)
    reward[graph.reward_entry[0]] = [-3.0, -1.0]
    values = Values(jnp.asarray(completion), jnp.asarray(reward), jnp.zeros(2), jnp.float32(100))
    sub, root = graph.subtask("Sub"), graph.subtask("Root")
    stack = stack_of(([root, sub], [2 + sub, 0], [0, 0], 2, 0), ([root, sub], [2 + sub, 0], [0, 1], 2, 1))
    found = maxq.values_of(graph, values, stack, np.array([0, 0]))
    assert found[sub] == 2.0
    assert found[root] == 12.0


def test_nodes_stand_as_high_as_they_are_over_the_actions(graph):
    at = maxq.layout(graph)
    assert at[:, 1].tolist() == [0, 0, 1, 2]
    assert at[:, 0].tolist() == [0.25, 0.75, 0.5, 0.5]
    used = maxq.Usage(np.array([[1.0, 2.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]), np.array([2.0, 12.0]), 4)
    (ax,) = maxq.figure_of(graph, used, plt).axes
    assert {text.get_text() for text in ax.texts} == {"go", "stay", "Sub\nV = 2", "Root\nV = 12", "1", "2.5"}


# FuN's directions


def test_cosines_are_of_the_way_over_c_steps():
    space = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], np.float32)
    goals = np.array([[1.0, 1.0], [-1.0, 0.0], [1.0, 0.0]], np.float32)
    relative = FunConfig(goal_horizon=2)
    np.testing.assert_allclose(fun.cosines(relative, space, goals), [1.0, np.sqrt(0.5)], rtol=1e-6)
    places = FunConfig(goal_horizon=2, directional_goals=False)
    np.testing.assert_allclose(fun.cosines(places, space, goals), [1.0, 0.0], atol=1e-6)
    assert len(fun.cosines(FunConfig(goal_horizon=9), space, goals)) == 0


def test_principal_components():
    t = np.linspace(-1, 1, 50)
    space = np.stack([3 * t, np.zeros(50), np.sin(20 * t) * 0.1], axis=1)
    axes, shares = fun.principal(space)
    np.testing.assert_allclose(np.abs(axes[0]), [1, 0, 0], atol=0.02)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-9)
    assert shares[0] > 0.99
    np.testing.assert_allclose(shares.sum(), 1.0)
    figure = fun.figure_of(
        fun.Directions(space[:3], space[:2], np.ones(1), np.zeros(2)), FunConfig(goal_horizon=2), plt
    )
    assert figure.axes[1].get_xlabel() == "step t"


# Episodes


@struct.dataclass
class CorridorParams(environment.EnvParams):
    end: int = 4
    max_steps_in_episode: int = 9


@struct.dataclass
class CorridorState(environment.EnvState):
    x: jax.Array
    time: jax.Array


class Corridor(environment.Environment):
    """Each step goes on by one; a picture is as bright as the agent is far."""

    default_params = CorridorParams()

    def reset_env(self, key, params):
        return jnp.zeros(1), CorridorState(x=jnp.zeros((), jnp.int32), time=jnp.zeros((), jnp.int32))

    def step_env(self, key, state, action, params):
        state = CorridorState(x=state.x + action, time=state.time + 1)
        return jnp.ones(1) * state.x, state, jnp.ones(()), state.x >= params.end, {}

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Box(0.0, 100.0, (1,))

    def render(self, state, params):
        return np.full((8, 8, 3), 10 * state.x + params.end, np.uint8)


def trained_on(env, forward=1):
    agent = Agent(
        init=lambda key: (),
        start=lambda params, key: (),
        act=lambda params, carry, inp, key, greedy: (jnp.int32(forward), carry, ()),
    )
    state = TrainState((), (), (), (), jax.random.key(0), jnp.zeros((), jnp.int32))

    algorithm = Algorithm(None, None, None, agent, 1)
    return Trained(None, env, single(env.default_params), algorithm, state)


def test_who_adapts_has_adapted_before():
    """Adaptation finds out how far a step must go."""
    trained = trained_on(Corridor(), forward=0)
    player = Player(
        new_task=lambda params, key: (jnp.int32(0), ()),
        new_episode=lambda params, memory, carry, key: carry,
        act=lambda params, memory, carry, inp, key, greedy: (memory, carry, ()),
    )
    adapt = lambda params, task, key: Known(jnp.int32(2), (), jnp.int32(0), jnp.zeros(()))
    algorithm = Algorithm(None, None, None, trained.algorithm.agent, 1, player=player, adapt=adapt)
    frames = episode.frames_of(trained._replace(algorithm=algorithm))
    assert [int(frame[0, 0, 0]) for frame in frames] == [4, 24, 44]


def test_frames_are_the_states_of_an_episode_its_end_included():
    frames = episode.frames_of(trained_on(Corridor()))
    assert [int(frame[0, 0, 0]) for frame in frames] == [4, 14, 24, 34, 44]
    steps = episode.play(trained_on(Corridor())).steps
    assert steps.terminated.tolist() == [False, False, False, True]
    stands = episode.frames_of(trained_on(Corridor(), forward=0))
    assert [int(frame[0, 0, 0]) for frame in stands] == [4] * 10  # the time limit


def test_of_a_long_episode_some_frames(tmp_path):
    class Long(Corridor):
        default_params = CorridorParams(end=20, max_steps_in_episode=200)

    trained = trained_on(Long())
    assert [int(f[0, 0, 0]) for f in episode.frames_of(trained, 5)] == [20, 70, 120, 170, 220]
    (path,) = episode.draw(trained, tmp_path)
    with GifImageFile(path) as gif:
        assert gif.n_frames == 21


def test_trials_are_shown_as_the_environment_within():
    trial = Trial(Corridor(), 2)
    assert renders(trial)
    frames = episode.frames_of(trained_on(trial))
    assert [int(frame[0, 0, 0]) for frame in frames] == [4, 14, 24, 34, 4, 14, 24, 34, 44]


def test_what_cannot_be_rendered_is_left_out(tmp_path, capsys):
    class Wrong(Corridor):
        def render(self, state, params):
            return np.zeros((4, 4))

    class Failing(Corridor):
        def render(self, state, params):
            raise RuntimeError("no screen\nat all")

    assert not renders(jaxrl_envs.make("CartPole-v1")[0])
    assert not renders(jaxrl_envs.make("FourRooms-misc")[0])  # gymnax's own render draws for the screen
    assert episode.draw(trained_on(jaxrl_envs.make("bandit-n10-k5")[0]), tmp_path) == []
    assert episode.draw(trained_on(Wrong()), tmp_path) == []
    said = capsys.readouterr().err
    wanted = "render must give a picture, uint8 [height, width, 3], got float64[4, 4]"
    assert said == f"jaxrl-hier: no episode.gif: Wrong: {wanted}\n"
    with pytest.raises(EnvCheckError, match=r"^Failing: render raises RuntimeError: no screen$"):
        frame_of(Failing(), None, None)


def test_an_environment_of_gymnasium_in_its_own_pictures():
    """Frames of a walk whose pictures are as bright as it is long, from its start to its end."""
    pytest.importorskip("gymnasium")
    import gymnasium

    from jaxrl_hier.host import HostEnv

    class Walk(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0.0, 100.0, (1,))
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, render_mode):
            self.render_mode, self.x = render_mode, 0

        def reset(self, *, seed=None, options=None):
            self.x = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.x += int(action)
            return np.full(1, self.x, np.float32), 1.0, self.x == 4, False, {}

        def render(self):
            return np.full((8, 8, 3), 10 * self.x, np.uint8)

    class Blind(Walk):
        def render(self):
            raise RuntimeError("no OpenGL")

    blind = HostEnv(lambda: gymnasium.wrappers.TimeLimit(Blind("rgb_array"), 9))
    assert blind.rendered() is None
    limited = lambda mode: HostEnv(lambda: gymnasium.wrappers.TimeLimit(Walk(mode), 9))
    assert limited(None).rendered() is None
    env = limited("rgb_array")
    frames = episode.host_frames(trained_on(env))
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 10, 20, 30, 40]


def test_grids_of_channels_are_shown_in_colours():
    env = jaxrl_envs.make("Breakout-MinAtar")[0]
    assert renders(env)
    obs, state = env.reset_env(jax.random.key(0), env.default_params)
    shown = frame_of(env, state, env.default_params, obs)
    obs = np.asarray(obs)
    assert shown.shape == (10, 10, 3)
    for row, col in np.argwhere(obs.any(axis=2)):
        assert shown[row, col].tolist() == COLORS[np.flatnonzero(obs[row, col])[-1]].tolist()
    assert not shown[~obs.any(axis=2)].any()


@pytest.mark.parametrize("name", [n for n in jaxrl_envs.names() if renders(jaxrl_envs.make(n)[0])])
def test_every_environment_that_renders_gives_a_frame(name):
    env, tasks = jaxrl_envs.make(name)
    params = tasks.sample(jax.random.key(0))
    obs, state = env.reset_env(jax.random.key(1), params)
    frame = frame_of(env, *jax.device_get((state, params, obs)))
    assert frame.std() > 0  # not an empty page


def test_gifs_are_small(tmp_path):
    rng = np.random.default_rng(0)
    noise = [np.repeat(np.repeat(rng.integers(0, 255, (60, 60, 3), np.uint8), 6, 0), 6, 1) for _ in range(16)]
    save_gif(tmp_path / "noise.gif", noise)
    assert (tmp_path / "noise.gif").stat().st_size <= LARGEST
    with GifImageFile(tmp_path / "noise.gif") as gif:
        assert max(gif.size) <= 320
        assert gif.n_frames >= 2
