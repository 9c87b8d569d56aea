"""VariBAD: beliefs, the ELBO and its gradient, what each loss moves, acting, an exact Bayes filter, bad settings."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs import Trial
from jaxrl_envs.bandits import Bandit
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.meta import varibad
from jaxrl_hier.meta.varibad import ActorCritic, Batch, Config, Learner, Networks
from jaxrl_hier.meta.varibad_belief import Shown, beliefs, negative_elbo
from tests.close import assert_close
from tests.compiling import optimised_jit, quick_jit
from tests.reference import slow_advantage

TINY = Config(
    episodes_per_trial=2,
    environments=6,
    minibatch_size=3,
    elbo_minibatch_size=2,
    latent_size=3,
    memory_size=4,
    hidden=(4,),
    decoder_hidden=(4,),
    epochs=2,
    eval_tasks=4,
)


def config(**settings):
    return dataclasses.replace(TINY, **settings)


def scrambled(params, seed=0, scale=0.5):
    """Parameters far from where they begin, biases included."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(x + scale * rng.normal(size=x.shape), jnp.float32), params)


class Played:
    """A rollout that begins within trials of two episodes of 10 steps, and holds the begin of others."""

    def __init__(self, name, length=24, **settings):
        env, tasks = jaxrl_envs.make(name)
        if name == "navigation2d":
            tasks = Tasks(sample=lambda key: env.default_params.replace(max_steps_in_episode=10), resample="episode")
        self.trial = Trial(env, 2)
        self.tasks = self.trial.tasks_of(tasks)
        self.config = config(**settings)
        self.algorithm = varibad.make(self.config, self.trial, self.tasks)
        self.model = varibad.model_of(self.config, self.trial)
        self.state = quick_jit(self.algorithm.init)(jax.random.key(0))
        self.params = scrambled(self.state.params)

        @quick_jit
        def play(world):
            return rollout(self.trial, self.algorithm.agent, self.tasks, self.params, world, length)

        self.before, _ = play(self.state.world)
        self.after, self.t = play(self.before)
        self.trials = varibad.trials_in(self.model, self.before, self.t)


@pytest.fixture(scope="module")
def processes():
    """With discrete states."""
    return Played("tabular-mdp", reward_model="bernoulli", decode_transitions=True, encoder_hidden=(3,))


@pytest.fixture(scope="module")
def points():
    """With continuous states."""
    return Played("navigation2d", decode_transitions=True, elbo_terms=5, decoder_hidden=(), kl_weight=0.7)


# --- what a trial shows --------------------------------------------------------------------------------------------


def test_steps_are_those_of_the_trial(processes):
    """State, action, reward and next state; a flag where the next state begins another episode of the trial."""
    t, steps = processes.t, processes.trials.steps
    np.testing.assert_array_equal(steps.state, t.obs[..., :10])
    np.testing.assert_array_equal(steps.action, jax.nn.one_hot(t.action, 5))
    assert_close(steps.reward, t.reward)
    np.testing.assert_array_equal(steps.next_state, t.next_obs[..., :10])
    np.testing.assert_array_equal(steps.begins, processes.trial.first_of_episode(t.next_obs))
    assert 0 < steps.begins.sum() < steps.begins.size
    assert processes.model.shown == Shown(state=10, action=5, time=0)


def test_the_policy_sees_the_state_and_the_time_but_not_what_only_the_belief_tells():
    env, _ = jaxrl_envs.make("navigation2d")
    trial = Trial(env, 2, trial_number=True)
    shown = Shown.by(trial)
    obs = jnp.array([1, 2, 3, 4, 5, 6, 7])  # position, action, reward, first, time
    np.testing.assert_array_equal(shown.seen_by_policy(obs), [1, 2, 7])
    steps = shown.steps(obs, 10 * obs)
    np.testing.assert_array_equal(jnp.concatenate([steps.state, steps.action]), [1, 2, 30, 40])
    np.testing.assert_array_equal(jnp.append(steps.next_state, steps.reward), [10, 20, 50])
    assert steps.begins == 60


# --- the ELBO ------------------------------------------------------------------------------------------------------


def test_divergence_of_a_belief_from_the_one_before(processes):
    """Step by step, in closed form and by Monte Carlo; from N(0, I) where a trial begins, and only there."""
    encoder, trials = processes.model.encoder, processes.trials
    params = processes.params.task_model.encoder
    posterior, prior = quick_jit(lambda params: beliefs(encoder, params, trials))(params)
    mean, log_std = np.asarray(prior.mean), np.asarray(prior.log_std)
    first = np.asarray(trials.first)
    assert 0 < first.sum() < first.size
    assert not first[0].all()
    assert (mean[first] == 0).all()
    assert (log_std[first] == 0).all()
    step = quick_jit(jax.vmap(lambda hidden, obs: encoder.step(params, hidden, obs)))
    hidden = trials.hidden[0]
    for t in range(len(first)):
        before = encoder.belief(params, hidden)
        begins = first[t][:, None]
        assert_close([mean[t], log_std[t]], [jnp.where(begins, 0.0, x) for x in before])
        hidden = step(jnp.where(begins, 0.0, hidden), trials.obs[t])
        assert_close([x[t] for x in posterior], list(encoder.belief(params, hidden)))

    kl = np.asarray(posterior.kl(prior))
    variance, of_prior = np.exp(2 * np.asarray(posterior.log_std)), np.exp(2 * log_std)
    terms = variance / of_prior + (posterior.mean - mean) ** 2 / of_prior - 1 + np.log(of_prior / variance)
    assert_close(kl, 0.5 * terms.sum(axis=-1), 1e-4)
    m = np.asarray(posterior.mean) + np.sqrt(variance) * np.random.default_rng(0).normal(size=(20_000, *mean.shape))
    sampled = np.asarray(posterior.log_prob(m) - prior.log_prob(m))
    error = sampled.std(axis=0) / math.sqrt(len(m))
    assert (np.abs(sampled.mean(axis=0) - kl) < 5 * error + 1e-4).all()


def dense(layer, x):
    return x @ np.asarray(layer["kernel"], np.float64) + (np.asarray(layer["bias"]) if "bias" in layer else 0.0)


def decoded(params, m, features, layers):
    """A decoder's outputs for one m and one step."""
    params = params["params"]
    hidden = dense(params["Dense_0"], m) + dense(params["Dense_1"], features)
    return dense(params["MLP_0"]["Dense_0"], np.maximum(hidden, 0)) if layers else hidden


@pytest.mark.parametrize("name", ["processes", "points"])
def test_the_elbo_term_by_term(name, request):
    """Every belief and every step of its own trial, in loops; no other trial's."""
    played = request.getfixturevalue(name)
    c, model, trials, params = played.config, played.model, played.trials, played.params.task_model
    T, B = trials.first.shape

    @quick_jit
    def both(params, key):
        loss = negative_elbo(model.encoder, model.decoder, c.kl_weight, c.elbo_terms, params, trials, key)
        key_m, key_terms = jax.random.split(key)
        posterior, prior = beliefs(model.encoder, params.encoder, trials)
        return loss, posterior.sample(key_m), posterior.kl(prior), jax.random.permutation(key_terms, T)

    (total, terms), m, kl, order = jax.device_get(both(params, jax.random.key(3)))
    steps, chosen = jax.tree.map(np.asarray, trials.steps), range(T) if c.elbo_terms is None else order[: c.elbo_terms]
    trial, expected = np.cumsum(trials.first, axis=0), 0.0
    for t, b in ((int(t), b) for t in chosen for b in range(B)):
        for i in range(T):
            if trial[i, b] != trial[t, b]:
                continue
            s, a, r, s_next, begins = (x[i, b] for x in steps)
            features = np.concatenate([s, a, s_next, [begins]])
            predicted = decoded(params.decoder["reward"], m[t, b], features, c.decoder_hidden)[0]
            if c.reward_model == "gaussian":
                expected -= 0.5 * (r - predicted) ** 2
            else:
                expected -= np.log1p(np.exp(-predicted if r > 0 else predicted))
            if c.decode_transitions and not begins:
                y = decoded(params.decoder["state"], m[t, b], np.concatenate([s, a]), c.decoder_hidden)
                if name == "points":
                    expected -= 0.5 * np.sum((s_next - y) ** 2)
                else:
                    expected += y[s_next.argmax()] - np.log(np.exp(y).sum())
    expected /= len(chosen) * B
    kl = kl.mean()
    assert_close(
        [terms["reconstruction"], terms["belief_kl"], total], [expected, kl, c.kl_weight * kl - expected], 1e-4
    )


def test_gradient_of_the_elbo_against_finite_differences(processes):
    """Through the samples of m, both beliefs of the divergence, the GRU and the decoder."""
    model, trials, params = processes.model, processes.trials, processes.params.task_model
    with jax.enable_x64(True):
        widen = lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
        params, trials = jax.tree.map(widen, (params, trials))

        def loss(params):
            return negative_elbo(model.encoder, model.decoder, 0.7, None, params, trials, jax.random.key(3))[0]

        slope, loss = quick_jit(jax.grad(loss))(params), quick_jit(loss)
        for part in ("encoder", "decoder"):
            along = scrambled(jax.tree.map(jnp.zeros_like, getattr(params, part)), seed=1)
            moved = lambda h: params._replace(
                **{part: jax.tree.map(lambda x, d: x + h * d, getattr(params, part), along)}  # noqa: B023
            )
            numerical = (loss(moved(1e-5)) - loss(moved(-1e-5))) / 2e-5
            products = jax.tree.map(lambda g, d: jnp.sum(g * d), getattr(slope, part), along)
            assert_close(numerical, sum(jax.tree.leaves(products)), 1e-6)
            assert abs(numerical) > 1e-2


# --- policy and value ----------------------------------------------------------------------------------------------


def test_the_batch_of_a_rollout(processes):
    """Advantages of the whole trial, from the values of acting; the last step counts only where a trial ends."""
    c, t = processes.config, processes.t
    batch = varibad.batch_of(c, processes.model, t)
    reward, value, terminated = (np.asarray(x).T for x in (t.reward, t.extras.value, t.terminated))
    of_one = lambda b: slow_advantage(reward[b], value[b], terminated[b], c.discount, c.gae_lambda)
    advantage = np.stack([of_one(b) for b in range(len(reward))], axis=1)
    weight = np.ones(t.reward.shape)
    weight[-1] = t.terminated[-1]
    np.testing.assert_array_equal(batch.weight, weight)
    assert_close(batch.target, advantage + t.extras.value)
    centred = np.where(weight > 0, advantage - advantage[weight > 0].mean(), 0)
    assert_close(batch.advantage, centred / advantage[weight > 0].std(), 1e-4)
    belief = t.extras.belief
    np.testing.assert_array_equal(
        batch.inputs, jnp.concatenate([t.obs[..., :10], belief.mean, belief.log_std], axis=-1)
    )
    np.testing.assert_array_equal(batch.log_prob, t.extras.log_prob)


def test_the_loss_of_policy_and_value_by_hand(processes):
    """With steps that do not count, and probabilities at the time of acting that differ from the policy's."""
    c, rng = config(critic_weight=0.3, clip=0.2), np.random.default_rng(0)
    model, params = processes.model, processes.params.actor_critic
    inputs = jnp.asarray(rng.normal(size=(5, 3, 16)), jnp.float32)
    policy, value = model.policy(params.policy, inputs), model.value(params.value, inputs)
    action = jnp.asarray(rng.integers(5, size=(5, 3)))
    log_prob = np.asarray(policy.log_prob(action))
    old = log_prob + rng.normal(size=(5, 3)) * 0.5
    advantage, target = rng.normal(size=(2, 5, 3))
    weight = (rng.random((5, 3)) < 0.7) * 1.0
    total, terms = varibad.policy_loss(c, model, 0.05, params, Batch(inputs, action, old, advantage, target, weight))
    ratio = np.exp(log_prob - old)
    mean = lambda x: np.sum(weight * np.asarray(x)) / weight.sum()
    gain = mean(np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage))
    value_loss, entropy = mean(0.5 * (target - value) ** 2), mean(policy.entropy())
    assert_close([total, terms["kl"]], [-gain + 0.3 * value_loss - 0.05 * entropy, mean(old - log_prob)], 1e-4)


def test_each_loss_moves_its_own_networks(processes):
    """The update of policy and value moves all of both, and does not depend on encoder and decoder, and vice versa."""
    model, t, before, params = processes.model, processes.t, processes.before, processes.params
    optimizers = optax.sgd(0.1), optax.sgd(0.2)
    states = [optimizer.init(part) for optimizer, part in zip(optimizers, params)]
    state = Learner(states[0], states[1], jnp.zeros((), jnp.int32))

    @quick_jit
    def learned(params):
        share = optax.constant_schedule(1.0)
        key = jax.random.key(1)
        return varibad.update(processes.config, model, optimizers, share, params, state, before, t, key)[0]

    new = learned(params)
    for now, then in zip(jax.tree.leaves(new), jax.tree.leaves(params)):
        assert (now != then).any()
    other = scrambled(params, seed=2)
    by_policy = learned(Networks(params.actor_critic, other.task_model))
    by_model = learned(Networks(other.actor_critic, params.task_model))
    jax.tree.map(np.testing.assert_array_equal, by_policy.actor_critic, new.actor_critic)
    jax.tree.map(np.testing.assert_array_equal, by_model.task_model, new.task_model)


def test_the_entropy_bonus_decays(processes):
    """After half of its iterations an update is that with half of the weight."""
    optimizers = optax.sgd(0.1), optax.sgd(0.2)
    states = [optimizer.init(part) for optimizer, part in zip(optimizers, processes.params)]

    def learned(settings, weight, iteration):
        settings = dataclasses.replace(settings, entropy_weight=weight)
        state, share = Learner(states[0], states[1], jnp.int32(iteration)), optax.constant_schedule(1.0)
        of = (processes.model, optimizers, share, processes.params, state, processes.before, processes.t)
        return varibad.update(settings, *of, jax.random.key(1))[0].actor_critic

    decaying = quick_jit(partial(learned, dataclasses.replace(processes.config, entropy_decay_iterations=10)))
    constant = quick_jit(partial(learned, processes.config))
    for iteration, weight in ((5, 0.4), (12, 0.0)):
        assert_close(decaying(0.8, iteration), constant(weight, 0), 1e-5)


# --- acting --------------------------------------------------------------------------------------------------------


def test_acting_equals_the_unroll_across_rollouts_and_trials(processes):
    """Beliefs, probabilities and values of acting are those of an unroll; a belief forgets where a trial begins."""
    model, t, params = processes.model, processes.t, processes.params
    posterior, _ = quick_jit(lambda params: beliefs(model.encoder, params, processes.trials))(params.task_model.encoder)
    assert_close(posterior, t.extras.belief)
    inputs = varibad.inputs_of(model, t.obs, posterior)
    assert_close(model.policy(params.actor_critic.policy, inputs).log_prob(t.action), t.extras.log_prob)
    assert_close(model.value(params.actor_critic.value, inputs), t.extras.value)
    at_begin = model.encoder.step(params.task_model.encoder, model.encoder.start(), t.obs[t.first][0])
    assert_close(t.extras.belief.mean[t.first][0], model.encoder.belief(params.task_model.encoder, at_begin).mean)
    np.testing.assert_array_equal(processes.before.carry.shape, (6, 4))
    assert ActorCritic._fields == ("policy", "value")


# --- a belief that is known ----------------------------------------------------------------------------------------

PAYS = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]], np.float32)  # of each task and arm


def filtered(action, reward):
    """The exact predictive probabilities that an arm pays, [T, B, arms], before each pull [T, B]."""
    likelihood = np.where(reward[..., None] > 0, PAYS.T[action], 1 - PAYS.T[action])  # [T, B, tasks]
    posterior = np.cumprod(np.concatenate([np.ones_like(likelihood[:1]), likelihood[:-1]]), axis=0)
    return posterior / posterior.sum(axis=-1, keepdims=True) @ PAYS


@pytest.mark.thorough
def test_predictions_by_the_belief_are_those_of_the_exact_filter():
    """One of three arms pays nine times in ten, the others once in ten. With arms pulled at random, encoder and decoder
    learn what pays: closer to the exact posterior predictive than to the prior's, which knows the tasks."""
    env, pulls = Bandit(3), 6
    task = lambda which: env.default_params.replace(probabilities=jnp.asarray(PAYS)[which], max_steps_in_episode=pulls)
    tasks = Tasks(sample=lambda key: task(jax.random.randint(key, (), 0, 3)), resample="episode", test=None)
    settings = {"environments": 256, "memory_size": 16, "hidden": (4,), "decoder_hidden": (32,)}
    of_policy = {"learning_rate": 1e-9, "epochs": 1, "minibatch_size": 256}
    of_model = {"reward_model": "bernoulli", "elbo_epochs": 1, "elbo_minibatch_size": 32, "elbo_learning_rate": 1e-2}
    c = Config(episodes_per_trial=1, eval_tasks=1, **settings, **of_policy, **of_model, **linear_over(200))
    algorithm, trial = varibad.make(c, env, tasks), Trial(env, 1)
    model = varibad.model_of(c, trial)

    @optimised_jit
    def run(key):
        state = jax.lax.scan(lambda s, _: (algorithm.step(s)[0], None), algorithm.init(key), length=200)[0]
        _, t = rollout(trial, algorithm.agent, trial.tasks_of(tasks), state.params, state.world, pulls)
        steps, belief = model.shown.steps(t.obs, t.next_obs), t.extras.belief
        m = belief.mean + jnp.exp(belief.log_std) * jax.random.normal(key, (100, *belief.mean.shape))

        def predicted(arm):  # [T, B], a mean over m
            shown = steps._replace(action=jnp.broadcast_to(jax.nn.one_hot(arm, 3), steps.action.shape))
            at = lambda m, step: model.decoder.reward(state.params.task_model.decoder, m[:, None], step)
            each = lambda m, step: at(m, jax.tree.map(lambda x: x[None, None], step))[:, 0, 0]
            return jnp.mean(jax.nn.sigmoid(jax.vmap(jax.vmap(each, (1, 0)), (1, 0))(m, shown)), axis=-1)

        return t, jnp.stack([predicted(arm) for arm in range(3)], axis=-1)

    t, predicted = run(jax.random.key(0))
    exact = filtered(np.asarray(t.action), np.asarray(t.reward))
    error, of_prior = np.abs(predicted - exact).mean(), np.abs(PAYS.mean() - exact).mean()
    assert error < 0.09
    assert error < of_prior / 2


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward_model": "poisson"}, "reward_model must be one of gaussian, bernoulli, got 'poisson'"),
        ({"elbo_terms": 0}, "elbo_terms must be positive, got 0"),
        (
            {"environments": 128, "elbo_minibatch_size": 48},
            r"environments must be a multiple of elbo_minibatch_size \(48\), got 128",
        ),
        (
            {"environments": 128, "minibatch_size": 48},
            r"environments must be a multiple of minibatch_size \(48\), got 128",
        ),
        ({"kl_weight": -1.0}, "kl_weight must be at least 0, got -1"),
        ({"decoder_hidden": (0,)}, "decoder_hidden layers must have positive sizes"),
        ({"episodes_per_trial": 0}, "a trial has at least one episode, not 0"),
        ({"eval_tasks": 421}, "421 test tasks were asked for and the task distribution holds 420"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(UsageError, match=message) as refused:
        jaxrl_hier.make("varibad", **settings)
    assert "\n" not in str(refused.value)
