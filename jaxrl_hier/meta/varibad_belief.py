"""VariBAD's model of a task: the belief about a latent variable m, what it predicts, and the evidence lower bound.

    encoder     q(m | τ_:t) = N(μ_t, σ_t²), from the hidden state of a GRU over what a trial has shown up to step t
    decoder     p(r_{i+1} | s_i, a_i, s_{i+1}; m), and, if transitions are decoded, p(s_{i+1} | s_i, a_i; m)
    ELBO_t      E_{m ~ q(m|τ_:t)} [ Σ_i log p(r_{i+1}, s_{i+1} | s_i, a_i; m) ] − w KL(q(m|τ_:t) ‖ q(m|τ_:t−1))

The sum is over all steps i of the trial, past and future: the belief at t must tell what is still to come. The prior of
ELBO_t is the belief of the step before, N(0, I) at a trial's first step.

A trial shows (`jaxrl_envs.trial`) the state s_t, the action and the reward that led to it, and whether it begins
another episode. The last state of an episode is not shown; the first of the next one stands in its place, which a flag
tells the reward's decoder. Transitions into such states are not decoded.

Axes in shapes: T steps of B trials side by side, K terms of the ELBO, F numbers of what a trial shows, O of a state, D
of an action, Z of m, H of the hidden state.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl_envs.trial import Trial
from jaxrl_hier.engine.sharding import each_device
from jaxrl_hier.engine.types import Metrics, Params
from jaxrl_hier.learning.distributions import DiagonalGaussian
from jaxrl_hier.learning.networks import MLP, Dense, action_size
from jaxrl_hier.learning.recurrent import gru, with_mlp

BOUND = 5.0  # of log σ


# What a trial shows


class Shown(NamedTuple):
    """Where the parts of what a trial shows are, [..., F] = [state | action | reward | first | time]."""

    state: int  # O
    action: int  # D
    time: int  # 1 with the elapsed share of the trial, else 0

    @classmethod
    def by(cls, trial: Trial) -> "Shown":
        """What this trial shows."""
        actions = action_size(trial.action_space(trial.default_params))
        size = trial.observation_space(trial.default_params).shape[0]
        return cls(size - actions - 2 - trial.trial_number, actions, int(trial.trial_number))

    def state_in(self, obs: jax.Array) -> jax.Array:
        """s, [..., O]."""
        return obs[..., : self.state]

    def seen_by_policy(self, obs: jax.Array) -> jax.Array:
        """The state and, where it is shown, the time, [..., O (+ 1)]."""
        return jnp.concatenate([self.state_in(obs), obs[..., obs.shape[-1] - self.time :]], axis=-1)

    def steps(self, obs: jax.Array, next_obs: jax.Array) -> "Steps":
        """The steps that led from what was shown, obs [..., F], to next_obs [..., F]."""
        after = self.state + self.action
        action, reward, begins = next_obs[..., self.state : after], next_obs[..., after], next_obs[..., after + 1]
        return Steps(self.state_in(obs), action, reward, self.state_in(next_obs), begins)


class Steps(NamedTuple):
    """What is decoded."""

    state: jax.Array  # [T, B, O]
    action: jax.Array  # [T, B, D]
    reward: jax.Array  # [T, B]
    next_state: jax.Array  # [T, B, O]
    begins: jax.Array  # [T, B] 1 where the next state begins another episode, else 0


# The encoder


class Encoder(NamedTuple):
    """Pure functions from what a trial shows to beliefs."""

    init: Callable[[jax.Array, int], Params]  # key, F -> params
    start: Callable[[], jax.Array]  # the hidden state before a trial's first step, [H]
    step: Callable[[Params, jax.Array, jax.Array], jax.Array]  # params, hidden [H], obs [F] -> hidden [H]
    unroll: Callable[[Params, jax.Array, jax.Array, jax.Array], jax.Array]
    # params, hidden [B, H], obs [T, B, F], first [T, B] -> hidden [T, B, H]
    belief: Callable[[Params, jax.Array], DiagonalGaussian]  # params, hidden [..., H] -> q [..., Z]


def encoder_of(layers: Sequence[int], memory_size: int, latent_size: int) -> Encoder:
    """The encoder with layers of ReLU before a GRU of H = `memory_size`, and Z = `latent_size`.

    log σ lies in (−5, 5), which keeps the divergence of two beliefs finite.
    """
    torso, head = with_mlp(layers, gru(memory_size)), MLP((2 * latent_size,))

    def init(key: jax.Array, features: int) -> Params:
        key_torso, key_head = jax.random.split(key)
        return {"torso": torso.init(key_torso, features), "head": head.init(key_head, jnp.zeros(memory_size))}

    def unroll(params: Params, hidden: jax.Array, obs: jax.Array, first: jax.Array) -> jax.Array:
        return each_device(torso.unroll, (None, 0, 1, 1), (0, 1))(params["torso"], hidden, obs, first)[1]

    def belief(params: Params, hidden: jax.Array) -> DiagonalGaussian:
        outputs: Any = head.apply(params["head"], hidden)
        mean, raw = jnp.split(outputs, 2, axis=-1)
        return DiagonalGaussian(mean, BOUND * jnp.tanh(raw / BOUND))

    step = lambda params, hidden, obs: torso.step(params["torso"], hidden, obs)[0]
    return Encoder(init, torso.start, step, unroll, belief)


# The decoder


class OfEachStep(nn.Module):
    """m [K, B, Z] and features of steps [T, B, F] -> [K, T, B, sizes[-1]], an MLP of the two joined, with ReLU.

    The first layer is computed for each of the two apart, so that it costs K + T products instead of K T.
    """

    sizes: Sequence[int]

    @nn.compact
    def __call__(self, m: jax.Array, features: jax.Array) -> jax.Array:
        first, *rest = self.sizes
        hidden = Dense(first)(m)[:, None] + Dense(first, use_bias=False)(features)[None]
        return MLP(tuple(rest))(nn.relu(hidden)) if rest else hidden


class Decoder(NamedTuple):
    """Pure functions from m to what it says about steps."""

    init: Callable[[jax.Array], Params]
    reward: Callable[[Params, jax.Array, Steps], jax.Array]
    # params, m [K, B, Z], steps [T, B] -> [K, T, B], the mean of a reward, or the logit of one above 0
    log_likelihood: Callable[[Params, jax.Array, Steps], jax.Array]  # the same -> log p [K, T, B]


def decoder_of(
    layers: Sequence[int],
    latent_size: int,
    trial: Trial,
    reward_model: Literal["gaussian", "bernoulli"],
    transitions: bool,
) -> Decoder:
    """The decoder with these hidden layers, for what a trial shows.

    Args:
        reward_model: "gaussian", N(mean, 1) without its constant; "bernoulli", whether a reward is above 0.
        transitions: whether they are decoded: as Categorical for Discrete observations, else as N(mean, I) without its
            constant.
    """
    shown, space = Shown.by(trial), trial.env.observation_space(trial.default_params.task)
    size = int(space.n) if isinstance(space, spaces.Discrete) else math.prod(space.shape)
    rewards, states = OfEachStep((*layers, 1)), OfEachStep((*layers, size))

    def init(key: jax.Array) -> Params:
        key_reward, key_state = jax.random.split(key)
        m, pair = jnp.zeros((1, latent_size)), jnp.zeros((1, shown.state + shown.action))
        params = {"reward": rewards.init(key_reward, m, jnp.zeros((1, 2 * shown.state + shown.action + 1)))}
        return params | ({"state": states.init(key_state, m, pair)} if transitions else {})

    def reward(params: Params, m: jax.Array, steps: Steps) -> jax.Array:
        features = [steps.state, steps.action, steps.next_state, steps.begins[..., None]]
        outputs: Any = rewards.apply(params["reward"], m, jnp.concatenate(features, axis=-1))
        return outputs[..., 0]

    def of_rewards(params: Params, m: jax.Array, steps: Steps) -> jax.Array:
        predicted = reward(params, m, steps)
        if reward_model == "gaussian":
            return -0.5 * (steps.reward - predicted) ** 2
        return jax.nn.log_sigmoid(jnp.where(steps.reward > 0, predicted, -predicted))

    def of_states(params: Params, m: jax.Array, steps: Steps) -> jax.Array:
        predicted: Any = states.apply(params["state"], m, jnp.concatenate([steps.state, steps.action], axis=-1))
        observed = steps.next_state[..., :size]
        if isinstance(space, spaces.Discrete):
            log_prob = jnp.sum(observed * jax.nn.log_softmax(predicted), axis=-1)
        else:
            log_prob = -0.5 * jnp.sum((observed - predicted) ** 2, axis=-1)
        return (1 - steps.begins) * log_prob

    def log_likelihood(params: Params, m: jax.Array, steps: Steps) -> jax.Array:
        log_prob = of_rewards(params, m, steps)
        return log_prob + of_states(params, m, steps) if transitions else log_prob

    return Decoder(init, reward, log_likelihood)


# The evidence lower bound


class TaskModel(NamedTuple):
    """Parameters of both."""

    encoder: Params
    decoder: Params


class Trials(NamedTuple):
    """T steps of B trials to learn from."""

    hidden: jax.Array  # [1, B, H] before the first step
    obs: jax.Array  # [T, B, F]
    first: jax.Array  # [T, B] bool, a trial's first step
    steps: Steps  # [T, B]


def beliefs(encoder: Encoder, params: Params, trials: Trials) -> tuple[DiagonalGaussian, DiagonalGaussian]:
    """q(m | τ_:t) [T, B, Z] of each step, and its prior: the belief of the step before, or N(0, I)."""
    hidden = encoder.unroll(params, trials.hidden[0], trials.obs, trials.first)
    before = encoder.belief(params, jnp.concatenate([trials.hidden, hidden[:-1]]))
    prior = jax.tree.map(lambda x: jnp.where(trials.first[..., None], 0.0, x), before)
    return encoder.belief(params, hidden), prior


def negative_elbo(
    encoder: Encoder,
    decoder: Decoder,
    kl_weight: Any,
    terms: int | None,
    params: TaskModel,
    trials: Trials,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """−ELBO_t [], a mean over the steps t of all trials, and its two parts as metrics.

    Args:
        kl_weight: w.
        terms: the expectation is computed for at most so many random t, the same ones in all trials; None: for all. The
            mean over what is drawn is the same.
    """
    key_m, key_terms = jax.random.split(key)
    posterior, prior = beliefs(encoder, params.encoder, trials)
    m, trial = posterior.sample(key_m), jnp.cumsum(trials.first, axis=0)
    chosen = slice(None) if terms is None else jax.random.permutation(key_terms, len(m))[:terms]
    same = trial[chosen][:, None] == trial[None]  # [K, T, B]: what is decoded belongs to the trial of the belief
    log_prob = decoder.log_likelihood(params.decoder, m[chosen], trials.steps)
    reconstruction = jnp.mean(jnp.sum(same * log_prob, axis=1))
    kl = jnp.mean(posterior.kl(prior))
    return kl_weight * kl - reconstruction, {"reconstruction": reconstruction, "belief_kl": kl}
