"""jaxtari's games behind the contract: with a game of our own in their place, and by jaxtari where it is installed."""

import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.atari import NOOPS, STICKY, Atari
from jaxrl_hier.engine.train import RunConfig, train
from jaxrl_hier.hierarchical import fun
from tests.close import assert_close


@struct.dataclass
class Lane:
    """A state of Walk."""

    place: jax.Array
    frames: jax.Array
    acted: jax.Array  # [64] the action of each frame


@struct.dataclass
class Seen:
    """What Walk tells; its space has another order."""

    speed: jax.Array
    walker: "Walker"


@struct.dataclass
class Walker:
    """Of whom."""

    place: jax.Array
    steps: jax.Array


class Walk:
    """In jaxtari's manner: to the right with action 0, a point for each step of it; over at place 10."""

    ACTION_SET = np.array([1, 0, 2])  # FIRE, NOOP, UP

    def reset(self, key):
        zero = jnp.zeros((), jnp.int32)
        state = Lane(zero, zero, jnp.full(64, -1, jnp.int32))
        return self._get_observation(state), state

    def step(self, state, action):
        moved = jnp.asarray(action == 0, jnp.int32)
        state = Lane(state.place + moved, state.frames + 1, state.acted.at[state.frames].set(action))
        return self._get_observation(state), state, moved.astype(jnp.float32), state.place >= 10, {}

    def _get_observation(self, state):
        return Seen(jnp.zeros(2), Walker(state.place[None], state.frames))

    def observation_space(self):
        walker = {"steps": spaces.Discrete(65), "place": spaces.Box(0, 20, (1,), jnp.int32)}
        return spaces.Dict({"walker": spaces.Dict(walker), "speed": spaces.Box(-1, 1, (2,), jnp.float32)})

    def action_space(self):
        return spaces.Discrete(3)

    def render(self, state):
        picture = jnp.zeros((210, 160, 3), jnp.uint8)
        return picture.at[100:110, 8 * state.place].set(255)


@pytest.fixture(scope="module")
def env():
    return Atari(Walk(), clip=False)


@pytest.mark.parametrize("observation", ["objects", "pixels"])
def test_conforms(observation):
    check_env(Atari(Walk(), observation))


def test_an_action_lasts_four_frames_and_sticks(env):
    """Against a walk frame by frame; each frame repeats the action before with a quarter's probability."""
    params, step, reset = env.default_params, jax.jit(env.step_env), jax.jit(env.reset_env)
    stuck, chances, idles = 0, 0, []
    for episode in range(30):
        _, state = reset(jax.random.key(episode), params)
        idle = int(state.game.frames)
        idles.append(idle)
        assert int(state.game.place) == 0
        place, total = 0, 0.0
        for t in range(8):
            wanted = 2 if t % 2 else 0
            obs, state, reward, over, info = step(jax.random.fold_in(jax.random.key(episode), t), state, wanted, params)
            acted = np.asarray(state.game.acted)[: int(state.game.frames)]
            done = acted[idle + 4 * t :]
            assert len(done) == 4 or over
            before = acted[idle + 4 * t - 1] if t else 1  # NOOP is its second action
            for now in done:
                assert now in (wanted, before)
                if before != wanted:  # else nobody can tell
                    stuck, chances = stuck + (now == before), chances + 1
                before = now
            place += int(np.sum(done == 0))
            total += float(reward)
            assert float(info["points"]) == float(reward)
            assert total == place == int(state.game.place)
            assert_close(obs, [idle / 64 + (len(acted) - idle) / 64, place / 20, 0.5, 0.5])
            if over:
                assert place == 10
                break
    assert abs(stuck / chances - STICKY) < 4 * (STICKY * (1 - STICKY) / chances) ** 0.5
    assert max(idles) <= NOOPS
    assert abs(np.mean(idles) - NOOPS / 2) < 4 * (NOOPS + 1) / (12 * 30) ** 0.5


def test_nothing_happens_after_the_end(env):
    state = env.reset_env(jax.random.key(0), env.default_params)[1]
    state = state.replace(game=state.game.replace(place=jnp.int32(9)), action=jnp.int32(0))
    _, after, reward, over, _ = env.step_env(jax.random.key(0), state, 0, env.default_params)
    assert over
    assert float(reward) == 1
    assert int(after.game.frames) == int(state.game.frames) + 1


def test_clipped_rewards_are_signs():
    env = Atari(Walk())
    state = env.reset_env(jax.random.key(0), env.default_params)[1].replace(action=jnp.int32(0))
    _, _, reward, _, info = env.step_env(jax.random.key(0), state, 0, env.default_params)
    assert float(reward) == 1
    assert float(info["points"]) == 4


def test_pictures_show_the_game():
    env = Atari(Walk(), "pixels")
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    columns = [
        np.asarray(env.get_obs(state.replace(game=state.game.replace(place=jnp.int32(p)))))[..., 0] for p in (2, 15)
    ]
    assert [picture.sum(0).argmax() for picture in columns] == [pytest.approx(8 * p * 84 / 160, abs=1) for p in (2, 15)]
    assert 40 <= columns[0].sum(1).argmax() <= 44


@pytest.mark.parametrize("observation", ["objects", "pixels"])
def test_fun_trains(observation):
    env = Atari(Walk(), observation)
    small = {"channels": (4, 4, 4), "hidden": (8,), "eval_episodes": 2}
    small |= {"goal_size": 8, "worker_size": 8, "embedding_size": 4}
    config = fun.Config(environments=2, rollout_length=10, **small)
    algorithm = fun.make(config, env, jaxrl_envs.tasks.single(env.default_params.replace(max_steps_in_episode=40)))
    result = train(algorithm, RunConfig(iterations=2, quiet=True))  # which says so if anything is not finite
    assert int(result.state.iteration[0]) == 2


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxtari", None)
    with pytest.raises(ValueError, match=r"not installed .*: pip install 'jaxrl-hier\[atari\]'"):
        jaxrl_envs.make("atari-montezumarevenge")


def test_without_pictures_or_such_a_game(monkeypatch):
    def refuse(*_):
        raise RuntimeError("SPRITES NOT INSTALLED\n---\nplease run")

    def lose(_):
        raise FileNotFoundError("no wall.npy")

    known = {"list_available_games": lambda: ["pong", "montezumarevenge"]}
    monkeypatch.setitem(sys.modules, "jaxtari", SimpleNamespace(check_ownership=refuse, **known))
    with pytest.raises(ValueError, match="pictures are not installed: run its install-sprites"):
        jaxrl_envs.make("atari-pong")
    with pytest.raises(ValueError, match="no game 'montezuma'; nearest: montezumarevenge"):
        jaxrl_envs.make("atari-montezuma-pixels")
    with pytest.raises(ValueError, match="observation must be"):
        Atari("pong", "sounds")
    monkeypatch.setitem(sys.modules, "jaxtari", SimpleNamespace(check_ownership=lambda: None, make=lose, **known))
    with pytest.raises(ValueError, match=r"run its install-sprites \(no wall.npy\)"):
        jaxrl_envs.make("atari-pong")


@pytest.mark.parametrize("name", ["atari-montezumarevenge", "atari-montezumarevenge-pixels"])
def test_montezuma(name):
    """Where jaxtari and its pictures are installed, which no test command does."""
    jaxtari = pytest.importorskip("jaxtari")
    try:
        jaxtari.check_ownership()
    except RuntimeError:
        pytest.skip("jaxtari's pictures are not installed")
    env, tasks = jaxrl_envs.make(name)
    assert env.name == name
    check_env(env, tasks, episodes=1, max_steps=20)
