"""Agents of learners from replay: what they see, where noise is, what the memory holds, what an evaluation measures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import jaxrl_envs
from jaxrl_envs.goals import GoalSpace
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.engine.evaluation import play
from jaxrl_hier.engine.types import ActInput, Agent
from jaxrl_hier.flat import dqn, sac, td3
from jaxrl_hier.learning.normalization import Statistics
from tests.close import assert_close
from tests.compiling import quick_jit

SMALL = {"hidden": (5,), "batch_size": 8, "capacity": 4000, "warmup_steps": 20, "environments": 4}
LEARNERS = {"dqn": (dqn, "CartPole-v1", 4), "td3": (td3, "Pendulum-v1", 3), "sac": (sac, "Pendulum-v1", 3)}


def seen(obs):
    return ActInput(obs, jnp.zeros(()), jnp.zeros(()), jnp.zeros((), bool))


@pytest.mark.parametrize("name", LEARNERS)
def test_agents_act_on_scaled_inputs(name):
    """By the statistics of training: the same as on inputs that were scaled before."""
    module, env, size = LEARNERS[name]
    agent = module.make(module.Config(**SMALL, normalize_observations=True), *jaxrl_envs.make(env)).agent
    mean, variance = jnp.linspace(-0.5, 0.5, size), jnp.linspace(0.1, 4.0, size)
    known = [Statistics(jnp.ones(()), *x) for x in ((mean, variance), (jnp.zeros(size), jnp.ones(size)))]
    obs = 0.7 * jax.random.normal(jax.random.key(2), (50, size))
    scaled = (obs - mean) / jnp.sqrt(variance)

    @quick_jit
    def actions(statistics, obs):
        params = agent.init(jax.random.key(0))._replace(inputs=statistics)
        return jax.vmap(lambda obs: agent.act(params, (), seen(obs), jax.random.key(1), True)[0])(obs)

    ours = actions(known[0], obs)
    assert_close(ours, actions(known[1], scaled))
    assert not np.allclose(ours, actions(known[1], obs), atol=1e-3)


def test_dqn_explores_unless_greedy():
    agent = dqn.make(dqn.Config(**SMALL, epsilon=1.0), *jaxrl_envs.make("CartPole-v1")).agent
    keys, obs = jax.random.split(jax.random.key(0), 400), jnp.array([0.1, -0.2, 0.3, 0.1])

    @quick_jit
    def both():
        params = agent.init(jax.random.key(0))
        act = lambda greedy: jax.vmap(lambda key: agent.act(params, (), seen(obs), key, greedy)[0])(keys)
        return act(True), act(False)

    greedy, wild = map(np.asarray, both())
    assert len(set(greedy.tolist())) == 1
    assert wild.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", LEARNERS)
def test_sizes_are_shared_by_the_environments(name):
    module, env, _ = LEARNERS[name]
    algorithm = module.make(module.Config(**SMALL, rollout_length=3), *jaxrl_envs.make(env))
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    assert state.memory.episode.shape == (4, 1000)
    assert algorithm.env_steps == 12


class Blinking:
    """Succeeds in the steps that `params.lit` names, by time; pays the time; observes the action that was taken."""

    name = "Blinking"

    def __init__(self, params):
        self.default_params = params

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        box = spaces.Box(-10, 10, (1,), jnp.float32)
        return GoalSpace(box, box)

    def compute_reward(self, achieved_goal, desired_goal, params):
        return achieved_goal[0]

    def _obs(self, time):
        x = jnp.full(1, time, jnp.float32)
        return {"observation": x, "achieved_goal": x, "desired_goal": x}

    def reset_env(self, key, params):
        return self._obs(0), jnp.zeros((), jnp.int32)

    def step_env(self, key, state, action, params):
        success = params.lit[state] & (action == 1)
        return self._obs(state + 1), state + 1, state + 1.0, state + 1 >= params.end, {"success": success}

    def is_truncated(self, state, params):
        return state >= params.max_steps_in_episode


def test_what_an_evaluation_measures():
    """Of each first episode alone, though a shorter one is followed by others; the agent acts greedily."""
    from flax import struct

    @struct.dataclass
    class Params:
        lit: jax.Array
        end: jax.Array
        max_steps_in_episode: jax.Array

    rows = {  # steps that succeed, the task's end, the time limit -> return, length, success, success at the end
        (0b00100, 9, 5): (15, 5, 1, 0),
        (0b10000, 9, 5): (15, 5, 1, 1),
        (0b01000, 3, 5): (6, 3, 0, 0),
        (0b00100, 3, 5): (6, 3, 1, 1),
        (0b11000, 9, 2): (3, 2, 0, 0),
    }
    lit = jnp.array([[row[0] >> t & 1 for t in range(5)] for row in rows], bool)
    ends, limits = (jnp.array([row[i] for row in rows], jnp.int32) for i in (1, 2))
    every = Params(lit, ends, limits)
    sample = lambda key: jax.tree.map(lambda x: x[jax.random.randint(key, (), 0, len(rows))], every)
    env = Blinking(Params(lit[0], ends[0], jnp.array(5)))
    agent = Agent(
        init=lambda key: (),
        start=lambda params, key: (),
        act=lambda params, carry, inp, key, greedy: (jnp.asarray(greedy, jnp.int32), carry, ()),
    )
    measured = quick_jit(lambda: play(env, agent, Tasks(sample, "episode"), (), jax.random.key(0), 64))()
    names = ("return", "length", "success", "success_at_end")
    found = set(zip(*(np.asarray(measured[name].values).astype(int).tolist() for name in names)))
    assert found == set(rows.values())
