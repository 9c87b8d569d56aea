"""Environments of other packages behind the contract. Each package is an extra; where it is not installed, what is said
then is tested alone."""

import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.adapters import robots
from jaxrl_envs.registry import FAMILIES, is_import_path
from jaxrl_envs.tasks import single
from tests.close import assert_close
from tests.compiling import quick_jit

pytestmark = pytest.mark.filterwarnings("ignore:Brax System:UserWarning")  # that they are not maintained

# environment -> the package that it needs
IDS = {
    "brax:inverted_pendulum": "brax",
    "craftax:Craftax-Classic-Symbolic-v1": "craftax",
    "jumanji:RubiksCube-partly-scrambled-v0": "jumanji",
    "jumanji:Maze-v0": "jumanji",
    "navix:Navix-Dynamic-Obstacles-5x5-v0": "navix",
    "pgx:tic_tac_toe": "pgx",
    "pgx:minatar-breakout": "pgx",
    "playground:CartpoleBalance": "mujoco_playground",
}


@pytest.fixture(scope="module")
def made():
    """name -> environment and tasks; each is made once."""
    kept = {}

    def make(name):
        pytest.importorskip(IDS[name])
        if name not in kept:
            kept[name] = jaxrl_envs.make(name)
            if name.startswith("brax:"):  # physics that compile in seconds; MuJoCo's are those of the playground
                env = robots.brax(name.removeprefix("brax:"), backend="spring")
                kept[name] = env, single(env.default_params)
        return kept[name]

    return make


@pytest.mark.parametrize("name", IDS)
def test_conforms(made, name):
    env, tasks = made(name)
    assert env.name == name
    check_env(env, tasks, episodes=1)


# The packages' own: environment, two words of a key -> first observation, state, and a function (state, words, action)
# -> observation, state, reward, whether the task has ended


def robot(env, words):
    seen = lambda state: state.obs["state"] if isinstance(state.obs, dict) else state.obs

    def step(state, words, action):
        state = env.env.step(state, action)
        return seen(state), state, state.reward, state.done > 0

    state = env.env.reset(words)
    return seen(state), state, step


def craftax(env, words):
    params = env.env.default_params

    def step(state, words, action):
        obs, state, reward, ended, _ = env.env.step_env(words, state, action, params)
        return obs, state, reward, ended

    return *env.env.reset_env(words, params), step


def jumanji(env, words):
    flat = lambda timestep: jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(timestep.observation)])

    shape = tuple(np.ravel(env.env.action_spec.num_values)) if env.env.action_spec.shape else ()
    every = np.array(list(np.ndindex(*shape)) if shape else range(env.num_actions))

    def step(state, words, action):
        state, timestep = env.env.step(state, jnp.asarray(every)[action])
        return flat(timestep), state, timestep.reward, timestep.last() & (timestep.discount == 0)

    state, timestep = env.env.reset(words)
    return flat(timestep), state, step


def navix(env, words):
    def step(timestep, words, action):
        timestep = env.env.step(timestep.replace(state=timestep.state.replace(key=words)), action)
        return timestep.observation, timestep, timestep.reward, timestep.is_termination()

    timestep = env.env.reset(words)
    return timestep.observation, timestep, step


def breakout(env, words):
    def step(state, words, action):
        state = env.env.step(state, action, jax.random.split(words)[0])
        return state.observation, state, state.rewards[0], state.terminated

    state = env.env.init(jax.random.split(words)[0])
    return state.observation, state, step


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("brax:inverted_pendulum", robot),
        ("playground:CartpoleBalance", robot),
        ("craftax:Craftax-Classic-Symbolic-v1", craftax),
        ("jumanji:RubiksCube-partly-scrambled-v0", jumanji),
        ("jumanji:Maze-v0", jumanji),
        ("navix:Navix-Dynamic-Obstacles-5x5-v0", navix),
        ("pgx:minatar-breakout", breakout),
    ],
)
def test_steps_are_the_packages_own(made, name, own):
    """The same keys and actions give what the package gives by itself, up to the first end of a task."""
    env, tasks = made(name)
    task, rng = tasks.sample(jax.random.key(0)), np.random.default_rng(zlib.crc32(name.encode()))
    step, key = quick_jit(env.step_env), jax.random.key(1)
    obs, state = quick_jit(env.reset_env)(key, task)
    expected, inner, step_of_its_own = own(env, jax.random.key_data(key))
    step_of_its_own = quick_jit(step_of_its_own)
    space = env.action_space(task)
    for i in range(15):
        assert_close(obs, expected)
        drawn = rng.uniform(-1, 1, space.shape) if space.shape else rng.integers(env.num_actions)
        action, key = jnp.asarray(drawn, space.dtype), jax.random.key(2 + i)
        obs, state, reward, terminated, _ = step(key, state, action, task)
        expected, inner, own_reward, ended = step_of_its_own(inner, jax.random.key_data(key), action)
        assert_close(reward, own_reward)
        assert bool(terminated) == bool(ended)
        assert int(state.time) == i + 1
        if ended:
            break


def test_an_opponent_moves_and_the_reward_is_the_agents(made):
    """Of tic-tac-toe: after each step it is the agent's turn, with as many marks as moves; wins are +1, losses −1, and
    two players at random win as often as is known: who begins in 58.5 %, who follows in 28.8 % of the games."""
    env, tasks = made("pgx:tic_tac_toe")
    task = tasks.sample(jax.random.key(0))

    def play(key):
        key_reset, key = jax.random.split(key)
        _, state = env.reset_env(key_reset, task)
        begins = jnp.sum(state.inner.legal_action_mask) == 9

        def step(carry, key):
            state, total, over, well = carry
            key_action, key = jax.random.split(key)
            action = jax.random.categorical(key_action, jnp.where(state.inner.legal_action_mask, 0.0, -jnp.inf))
            _, after, reward, terminated, _ = env.step_env(key, state, action, task)
            turn = terminated | (after.inner.current_player == 0)
            state = jax.tree.map(lambda x, y: jnp.where(over, x, y), state, after)
            return (state, total + jnp.where(over, 0, reward), over | terminated, well & (over | turn)), None

        begin = state, jnp.zeros(()), jnp.zeros((), bool), jnp.ones((), bool)
        (_, total, over, well), _ = jax.lax.scan(step, begin, jax.random.split(key, 5))
        return begins, total, over & well

    begins, total, well = map(np.asarray, quick_jit(jax.vmap(play))(jax.random.split(jax.random.key(3), 4000)))
    assert well.all()
    assert set(total.tolist()) == {-1.0, 0.0, 1.0}
    assert abs(begins.mean() - 0.5) < 0.04
    error = 4 * 0.5 / np.sqrt(len(total) / 2)  # four standard errors at most
    assert abs((total[begins] == 1).mean() - 0.585) < error
    assert abs((total[~begins] == 1).mean() - 0.288) < error


def test_a_time_limit_is_no_end_of_the_task(made):
    """Of NAVIX, which resets at it."""
    pytest.importorskip("navix")
    from jaxrl_envs.adapters.navix import Navix

    env = Navix("Navix-Empty-5x5-v0", limit=3)
    task, step = env.default_params, quick_jit(env.step_env)
    obs, state = env.reset_env(jax.random.key(0), task)
    for i in range(3):
        obs, state, _, terminated, _ = step(jax.random.key(i), state, jnp.int32(0), task)  # turns
        assert not terminated
        assert bool(env.is_truncated(state, task)) == (i == 2)
    np.testing.assert_array_equal(obs, env.get_obs(state))  # the true successor


def test_settings_that_do_not_fit(made):
    pytest.importorskip("jumanji")
    from jaxrl_envs.adapters.jumanji import Jumanji

    env = Jumanji("Snake-v1", field="grid", limit=50)
    assert env.observation_space(None).shape == (12, 12, 5)
    assert env.default_params.max_steps_in_episode == 50
    for make, message in [
        (lambda: Jumanji("Snake-v1", field="picture"), "has no 'picture'; it has grid, step_count, action_mask"),
        (lambda: Jumanji("Snake-v1", limit=-1), "limit must be at least one step, got -1"),
        (lambda: Jumanji("Connector-v3"), "several agents"),
        (lambda: jaxrl_envs.make("jumanji:snake"), "Jumanji has no environment 'snake'; nearest: Snake-v1"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize(
    ("name", "module", "title"),
    [
        ("brax:ant", "brax.envs", "brax"),
        ("craftax:Craftax-Symbolic-v1", "craftax.craftax_env", "Craftax"),
        ("jumanji:Snake-v1", "jumanji", "Jumanji"),
        ("mjx:Ant-v5", "mujoco.mjx", "MJX"),
        ("mujoco:cheetah-velocity", "mujoco", "MuJoCo"),
        ("mujoco:Ant-v5", "mujoco", "MuJoCo"),
        ("navix:Navix-Empty-5x5-v0", "navix", "NAVIX"),
        ("pgx:go_9x9", "pgx", "Pgx"),
        ("playground:CheetahRun", "mujoco_playground", "MuJoCo Playground"),
    ],
)
def test_without_the_package(monkeypatch, name, module, title):
    monkeypatch.setitem(sys.modules, module, None)
    extra = name.partition(":")[0]
    with pytest.raises(ValueError, match=rf"^{title} is not installed .*: pip install 'jaxrl-hier\[{extra}\]'$"):
        jaxrl_envs.make(name)
    assert not is_import_path(name)


def test_ids_of_packages_import_nothing_that_a_stranger_names():
    """What a run's config.json may name without being named again."""
    assert not any(is_import_path(f"{prefix}some.module:name") for prefix in FAMILIES)
    assert is_import_path("some.module:name")
    assert is_import_path("gymnasium:some.module:Id-v0")
    assert not is_import_path("gymnasium:Pendulum-v1")
