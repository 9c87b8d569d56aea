"""Acting step by step is the compiled rollout, and adapting step by step is the engine's meta-test."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sizes import SIZES

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.boxes import inside
from jaxrl_hier import registry
from jaxrl_hier.engine import acting
from jaxrl_hier.engine.rollout import begin, ended, rollout
from jaxrl_hier.policy import Policy

KEY = jax.random.key(5)
STEPS, LIMIT = 9, 4  # of a rollout, and of its episodes: two ends


def short(tasks, limit=LIMIT):
    """The same tasks with a time limit of so few steps."""
    cut = lambda params: replace(params, max_steps_in_episode=jnp.int32(limit))
    return tasks._replace(sample=lambda key: cut(tasks.sample(key)), test=None, train=None)


def preset(name, **settings):
    """A registered algorithm at the size of a test, its environment, and short tasks of it."""
    env, tasks = jaxrl_envs.make(registry.entry(name).env)
    return jaxrl_hier.make(name, env, tasks, **SIZES[name] | settings), env, short(tasks)


def rolled(agent, env, tasks, params, key, greedy):
    """Transitions [STEPS, 1, ...] of one world."""
    world = jax.vmap(lambda key: begin(env, agent, tasks, params, key))(key[None])
    return rollout(env, agent, tasks, params, world, STEPS, greedy)[1]


def acted(policy, t):
    """What a policy does [T, ...] that is shown what happened in a rollout, [T, ...]."""
    t, over = jax.tree.map(np.asarray, (t, ended(t)))
    row = lambda x, i: jax.tree.map(lambda x: x[i], x)
    before = lambda i: (t.reward[i - 1], over[i - 1]) if i else ()
    return np.stack([policy.act(row(t.obs, i), *before(i)) for i in range(len(over))])


def program(algorithm, env, tasks, greedy):
    """The text of all that is compiled for acting: what is the same in two algorithms needs one test."""

    def both(key):
        params = algorithm.agent.init(key)
        agents = jax.vmap(lambda key: acting.new_task(env, algorithm.player, params, key))(key[None])
        t = rolled(algorithm.agent, env, tasks, params, key, greedy)
        seen = [jax.tree.map(lambda x: x[0], x) for x in (t.obs, t.reward, t.terminated)]
        return acting.act(env, algorithm.player, tasks, params, agents, *seen, greedy=greedy), t

    return str(jax.make_jaxpr(both)(KEY))


done = {}  # program -> name of the algorithm that was tested


GREEDY = ("dqn", "hiro")  # also without exploring; the others draw, as in training


@pytest.mark.parametrize("name", [name for name in registry.ALGORITHMS if name != "rl2"])
def test_acting_step_by_step_is_the_rollout(name):
    algorithm, env, tasks = preset(name)
    for greedy in (False, True) if name in GREEDY else (False,):
        text = program(algorithm, env, tasks, greedy)
        if text in done:
            continue
        params = jaxrl_hier.jit(algorithm.agent.init)(jax.random.key(0))
        t = jaxrl_hier.jit(partial(rolled, algorithm.agent, env, tasks, greedy=greedy))(params, key=KEY)
        assert ended(t).sum() >= 2
        space = env.action_space(env.default_params)
        policy = Policy(algorithm, params, env, tasks, key=KEY, greedy=greedy)
        row = jax.tree.map(lambda x: x[:, 0], t)
        np.testing.assert_array_equal(acted(policy, row), jax.vmap(partial(inside, space))(row.action))
        done[text] = name
