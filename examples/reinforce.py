"""REINFORCE with a baseline b(s) (Williams, 1992): ∇J = E Σ_t ∇ log π(a_t | s_t) (G_t − b(s_t)) over whole episodes."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from jaxrl_hier.engine import evaluation, rollout
from jaxrl_hier.engine.types import Agent, Algorithm, TrainState
from jaxrl_hier.learning.advantages import discounted_sum
from jaxrl_hier.learning.networks import MLP, encoder_for, policy_for
from jaxrl_hier.registry import Entry
from jaxrl_hier.settings import BaseConfig


@dataclass(frozen=True)
class Config(BaseConfig):  # each setting is a flag of the command line, with its text
    environments: int = 32
    """episodes per iteration"""
    learning_rate: float = 1e-2
    """of Adam"""
    discount: float = 0.99
    """γ in G_t = Σ_k γ^k r_{t+k}, to the end of the episode or its time limit"""


def surrogate(log_prob, returns, baseline, mask):
    """The number whose gradient is −∇J; all [T, B], with a `mask` of 1 until an episode ends and then 0."""
    return -jnp.sum(mask * log_prob * jax.lax.stop_gradient(returns - baseline)) / mask.shape[1]


def make(config, env, tasks):
    observations, actions = env.observation_space(env.default_params), env.action_space(env.default_params)
    encode, policy, value = encoder_for(observations), policy_for(actions, (32,)), MLP((32, 1))
    optimizer, horizon = optax.adam(config.learning_rate), tasks.time_limit()

    def init_params(key):
        keys, obs = jax.random.split(key), encode(observations.sample(jax.random.key(0)))  # any observation
        return {"policy": policy.init(keys[0], obs), "value": value.init(keys[1], obs)}

    def act(params, carry, inp, key, greedy):
        pi = policy.apply(params["policy"], encode(inp.obs))
        return pi.mode() if greedy else pi.sample(key), carry, ()

    def loss(params, t):
        obs, mask = encode(t.obs), rollout.first_episode(t)
        returns = discounted_sum(t.reward * mask, jnp.full_like(mask, config.discount))
        pi, b = policy.apply(params["policy"], obs), value.apply(params["value"], obs)[..., 0]
        return surrogate(pi.log_prob(t.action), returns, b, mask) + jnp.sum(mask * (b - returns) ** 2) / jnp.sum(mask)

    def init(key):
        key, key_params, key_world = jax.random.split(key, 3)
        params, world = init_params(key_params), jax.random.split(key_world, config.environments)
        return TrainState(params, optimizer.init(params), world, (), key, jnp.int32(0))

    def step(state):
        keys = jax.vmap(jax.random.split)(state.world)  # for each episode, a key to keep and one to use
        worlds = jax.vmap(lambda key: rollout.begin(env, agent, tasks, state.params, key))(keys[:, 1])
        t = rollout.rollout(env, agent, tasks, state.params, worlds, horizon)[1]
        earned = jnp.sum(t.reward * rollout.first_episode(t)) / config.environments
        updates, learner = optimizer.update(jax.grad(loss)(state.params, t), state.learner)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, learner, keys[:, 0], (), state.key, state.iteration + 1), {"return": earned}

    agent = Agent(init=init_params, start=lambda params, key: (), act=act)
    evaluate = lambda state, key: evaluation.play(env, agent, tasks, state.params, key, episodes=100)
    return Algorithm(init, step, evaluate, agent, env_steps=config.environments * horizon)


reinforce = Entry(__name__, env="CartPole-v1", summary="REINFORCE with a baseline (Williams, 1992)")
