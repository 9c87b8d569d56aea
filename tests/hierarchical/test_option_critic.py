"""The option-critic with a network: gradients against exact objectives and closed forms, targets against a loop."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl_envs
from jaxrl_envs.memory_tasks import TMaze
from jaxrl_envs.tasks import single
from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import ActInput, Transition
from jaxrl_hier.exact import smdp
from jaxrl_hier.hierarchical.option_critic import (
    Config,
    Heads,
    arrival_value,
    choice_value,
    losses,
    make,
    policy_loss,
    termination_loss,
)
from jaxrl_hier.hierarchical.usage import Executed, usage_metrics
from jaxrl_hier.learning.advantages import bootstrapped_advantage
from jaxrl_hier.learning.distributions import Categorical
from tests.close import assert_close
from tests.compiling import optimised_jit, quick_jit
from tests.probes import Corridor, way_out

GAMMA = 0.9
S, O, A = 2, 3, 2
ROOMS = "four-rooms-option-critic"


# The theorems, on a process of two states


@pytest.fixture(scope="module")
def process():
    """P, R, a policy over options μ [S, O], and the logits of policies [S, O, A] and terminations [S, O]."""
    rng = np.random.default_rng(0)
    P, R = rng.dirichlet(np.ones(S), (S, A)), rng.normal(size=(S, A))
    return P, R, rng.dirichlet(np.ones(O), S), rng.normal(size=(S, O, A)), rng.normal(size=(S, O))


def option_values(P, R, mu, logits, stop):
    """Exact Q(s, o) [S, O], differentiable in forward mode."""
    policy, beta = jax.nn.softmax(logits).swapaxes(0, 1), jax.nn.sigmoid(stop).T
    models = smdp.option_models(P, R, Options(jnp.ones((O, S), bool), policy, beta), GAMMA)
    return smdp.option_values(models, smdp.option_policy_evaluation(models, mu))


def arrivals(P, mu, logits, stop, option, state):
    """Discounted visits, from one step with `option` in `state`: of pairs [S, O] that act, and of arrivals (s', o)."""
    policy, beta = np.asarray(jax.nn.softmax(logits)), np.asarray(jax.nn.sigmoid(stop))
    arrive = GAMMA * np.einsum("soa,sat->sot", policy, P)  # [S, O, S']
    decide = (
        np.einsum("to,op->top", 1 - beta, np.eye(O)) + beta[:, :, None] * mu[:, None, :]
    )  # at s' with o: [S', O, O']
    chain = np.einsum("sot,top->sotp", arrive, decide).reshape(S * O, S * O)
    start = np.zeros(S * O)
    start[state * O + option] = 1
    acting = np.linalg.solve(np.eye(S * O) - chain.T, start).reshape(S, O)
    return acting, np.einsum("so,sot->to", acting, arrive)


def test_expected_gradients_are_those_of_the_exact_objective(process):
    P, R, mu, logits, stop = process
    option, state = 1, 0
    with jax.enable_x64(True):
        objective = lambda logits, stop: option_values(P, R, mu, logits, stop)[state, option]
        exact = jax.jit(jax.jacfwd(objective, argnums=(0, 1)))(logits, stop)
        step = 1e-5  # and jvp through the solver's loops is what finite differences say
        bump = np.zeros((S, O))
        bump[1, 1] = step
        difference = (objective(logits, stop + bump) - objective(logits, stop - bump)) / (2 * step)
        assert_close(exact[1][1, 1], difference)

        q = option_values(P, R, mu, logits, stop)
        v = jnp.sum(mu * q, axis=1)
        arrived = arrival_value(q, jax.nn.sigmoid(stop), v[:, None])  # U(s', o) [S, O]
        q_u = R[:, None] + GAMMA * jnp.einsum("sat,to->soa", P, arrived)  # Q_U(s, o, a)
        acting, arriving = arrivals(P, mu, logits, stop, option, state)

        def policies(logits):
            policy = Categorical(jnp.broadcast_to(logits[:, :, None], (S, O, A, A)))
            loss = policy_loss(policy, jnp.broadcast_to(jnp.arange(A), (S, O, A)), q_u - q[..., None])
            return jnp.sum(acting[..., None] * jax.lax.stop_gradient(jax.nn.softmax(logits)) * loss)

        terminations = lambda stop: jnp.sum(arriving * termination_loss(jax.nn.sigmoid(stop), q, v[:, None], 0.0))
        assert_close(-jax.grad(policies)(logits), exact[0], 1e-9)
        assert_close(-jax.grad(terminations)(stop), exact[1], 1e-9)
        assert np.abs(exact[1]).max() > 1e-3


def test_deliberation_cost_pulls_terminations_down():
    q, v = jnp.array([1.0, 1.0]), jnp.array([1.05, 0.9])  # choosing anew is better by 0.05, or worse by 0.1
    slope = lambda cost: jax.grad(lambda beta: jnp.sum(termination_loss(beta, q, v, cost)))(jnp.array([0.5, 0.5]))
    assert_close(slope(0.0), [-0.05, 0.1])  # descent raises β, lowers β
    assert_close(slope(0.2), [0.15, 0.3])  # too dear: lowers it in both


# Targets and losses


def random_batch(seed=0, length=12, environments=5, options=O, actions=4):
    """Heads of states and successors, and transitions in which options and episodes end, also by the time limit."""
    rng = np.random.default_rng(seed)
    shape = (length, environments)
    heads, after = (
        Heads(*(jnp.asarray(rng.normal(size=(*shape, *size))) for size in ((options,), (options, actions), (options,))))
        for _ in range(2)
    )
    end = rng.choice(3, shape, p=[0.7, 0.15, 0.15])
    first = np.concatenate([rng.random((1, environments)) < 0.5, end[:-1] > 0])
    option = rng.integers(options, size=shape)
    previous = np.concatenate([rng.integers(options, size=(1, environments)), option[:-1]])
    chosen = first | (option != previous) | (rng.random(shape) < 0.2)
    did = Executed(jnp.asarray(option), jnp.asarray(previous), jnp.asarray(chosen), jnp.full(shape, 0.5))
    nothing = jnp.zeros(shape)
    action, reward = jnp.asarray(rng.integers(actions, size=shape)), jnp.asarray(rng.normal(size=shape))
    t = Transition(
        nothing, action, reward, jnp.asarray(end == 1), jnp.asarray(end == 2), nothing, jnp.asarray(first), did
    )
    return heads, after, t


def slow_advantages(heads, after, t, config):
    """A_t by a backward loop over each environment."""
    T, B = t.reward.shape
    advantage = np.zeros((T, B))
    for b in range(B):
        following = 0.0
        for i in reversed(range(T)):
            o, q = int(t.extras.option[i, b]), np.asarray(after.q[i, b])
            beta = 1 / (1 + np.exp(-float(after.stop[i, b, o])))
            v = (1 - config.epsilon) * q.max() + config.epsilon * q.mean()
            u = 0.0 if t.terminated[i, b] else (1 - beta) * q[o] + beta * v
            error = float(t.reward[i, b]) + config.discount * u - float(heads.q[i, b, o])
            over = bool(t.terminated[i, b] | t.truncated[i, b])
            following = error + (0.0 if over else config.discount * config.gae_lambda * following)
            advantage[i, b] = following
    return advantage


def test_loss_gradients_are_the_closed_forms_and_nothing_else():
    config = Config(num_options=O, deliberation_cost=0.07, epsilon=0.2, discount=0.9, gae_lambda=0.8)
    with jax.enable_x64(True):
        heads, after, t = random_batch()
        names = ("critic", "policy", "termination")
        total = lambda heads, after: sum(losses(heads, after, t, config)[name] for name in names)
        gradient, through = jax.jit(jax.grad(total, argnums=(0, 1)))(heads, after)
        assert all(not np.any(x) for x in jax.tree.leaves(through))  # targets are constants

        advantage = slow_advantages(heads, after, t, config)
        assert t.terminated.any()
        assert t.truncated.any()
        count = advantage.size
        expected = jax.tree.map(lambda x: np.zeros(x.shape), heads)
        for i, b in np.ndindex(advantage.shape):
            o, before = int(t.extras.option[i, b]), int(t.extras.previous[i, b])
            expected.q[i, b, o] = -advantage[i, b] / count
            pi = np.asarray(jax.nn.softmax(heads.logits[i, b, o]))
            expected.logits[i, b, o] = -advantage[i, b] * (np.eye(4)[t.action[i, b]] - pi) / count
            if not t.first[i, b]:
                q = np.asarray(heads.q[i, b])
                v = (1 - config.epsilon) * q.max() + config.epsilon * q.mean()
                beta = 1 / (1 + np.exp(-float(heads.stop[i, b, before])))
                expected.stop[i, b, before] = beta * (1 - beta) * (q[before] - v + 0.07) / count
        for found, wanted in zip(gradient, expected):
            assert_close(found, wanted, 1e-10)


def test_with_trace_1_the_return_is_n_step_with_a_control_variate():
    """Σ γ^k r_k + γ^n U_n, and U − Q of the option that went on in between; no episode ends here."""
    config = Config(num_options=O, gae_lambda=1.0, discount=0.9)
    with jax.enable_x64(True):
        heads, after, t = random_batch()
        never = jnp.zeros_like(t.terminated)
        t = t._replace(terminated=never, truncated=never)
        pick = lambda x, o: jnp.take_along_axis(x, o[..., None], -1)[..., 0]
        o = t.extras.option
        v = choice_value(after.q, config.epsilon)
        u = arrival_value(pick(after.q, o), jax.nn.sigmoid(pick(after.stop, o)), v)
        q = pick(heads.q, o)
        target = bootstrapped_advantage(t.reward, q, u, never, never, 0.9, 1.0) + q
        T = len(q)
        weights = 0.9 ** np.arange(T)[:, None]
        direct = np.sum(weights * t.reward, axis=0) + 0.9**T * u[-1]
        direct += np.sum(weights[1:] * (u[:-1] - q[1:]), axis=0)
        assert_close(target[0], direct, 1e-12)


def test_one_option_is_an_advantage_actor_critic():
    config = Config(num_options=1, deliberation_cost=0.7)  # which a single option does not pay
    with jax.enable_x64(True):
        heads, after, t = random_batch(options=1)
        names = ("critic", "policy", "termination")
        total = lambda heads: sum(losses(heads, after, t, config)[name] for name in names)

        def actor_critic(heads):  # generalised advantage estimation with V = Q(·, 0)
            value, following = heads.q[..., 0], jnp.where(t.terminated, 0.0, after.q[..., 0])
            error = t.reward + config.discount * following - value
            going_on = config.discount * config.gae_lambda * ~(t.terminated | t.truncated)
            advantage, sums = jnp.zeros(error.shape[1]), []
            for i in reversed(range(len(error))):
                advantage = error[i] + going_on[i] * advantage
                sums.append(advantage)
            advantage = jax.lax.stop_gradient(jnp.stack(sums[::-1]))
            log_prob = Categorical(heads.logits[:, :, 0]).log_prob(t.action)
            target = jax.lax.stop_gradient(advantage + value)
            return jnp.mean(0.5 * (target - value) ** 2 - log_prob * advantage)

        found, wanted = jax.grad(total)(heads), jax.grad(actor_critic)(heads)
        for name in ("q", "logits"):
            assert_close(getattr(found, name), getattr(wanted, name), 1e-12)
        assert_close(found.stop, 0.0, 1e-12, scale=1)


def heads_by_hand(params, obs, config, actions):
    """The network of one hidden layer, written out."""
    p = params["params"]
    dense = lambda x, layer: x @ layer["kernel"] + layer["bias"]
    x = jnp.tanh(dense(obs, p["MLP_0"]["Dense_0"]))
    logits = dense(x, p["policies"]) / config.temperature
    return Heads(
        q=config.value_scale * dense(x, p["values"]),
        logits=logits.reshape(*logits.shape[:-1], config.num_options, actions),
        stop=dense(x, p["terminations"]),
    )


def noisy(params, seed=0, size=0.5):
    """Parameters of which no head is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + size * rng.normal(size=x.shape).astype(x.dtype), params)


def test_an_update_follows_the_weighted_sum_of_its_terms():
    """Adam's first moments show the gradient of all four terms, clipped by its global norm."""
    env, limit = TMaze(1, "vector"), 5
    tasks = single(env.default_params.replace(max_steps_in_episode=limit))
    config = Config(num_options=O, environments=16, rollout_length=8, hidden=(5,), temperature=0.7, value_scale=2.0)
    config = replace(
        config, deliberation_cost=0.3, epsilon=0.2, entropy_weight=0.4, critic_weight=0.3, max_grad_norm=0.02
    )
    algorithm = make(config, env, tasks)
    state = algorithm.init(jax.random.key(0))
    state = replace(state, params=noisy(state.params))
    play = quick_jit(lambda world: rollout(env, algorithm.agent, tasks, state.params, world, 8))
    state = replace(state, world=play(state.world)[0])  # amid an episode
    after, metrics = quick_jit(algorithm.step)(state)
    t = jax.device_get(play(state.world)[1])
    assert t.terminated.any()
    assert t.truncated.any()

    seen, following = jax.device_get([heads_by_hand(state.params, obs, config, 4) for obs in (t.obs, t.next_obs)])
    advantage = slow_advantages(seen, following, t, config)

    def loss(params):
        heads = heads_by_hand(params, t.obs, config, 4)
        pick = lambda x, o: jnp.take_along_axis(x, o[..., None], -1)[..., 0]
        o, before = t.extras.option, t.extras.previous
        target = advantage + pick(seen.q, o)
        log_p = jax.nn.log_softmax(jnp.take_along_axis(heads.logits, o[..., None, None], axis=-2)[..., 0, :])
        choosing = 0.8 * jnp.max(seen.q, axis=-1) + 0.2 * jnp.mean(seen.q, axis=-1)
        bracket = pick(seen.q, before) - choosing + 0.3
        critic = jnp.mean(0.5 * (target - pick(heads.q, o)) ** 2)
        policy = -jnp.mean(pick(log_p, t.action) * advantage)
        termination = jnp.mean(jnp.where(t.first, 0.0, jax.nn.sigmoid(pick(heads.stop, before)) * bracket))
        entropy = -jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, axis=-1))
        return policy + 0.3 * critic + termination - 0.4 * entropy, (critic, entropy)

    gradient, (critic, entropy) = quick_jit(jax.grad(loss, has_aux=True))(state.params)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
    assert norm > 2 * config.max_grad_norm
    used = jax.tree.map(lambda mu: 10 * mu, optax.tree_utils.tree_get(after.learner, "mu"))
    wanted = jax.tree.map(lambda g: config.max_grad_norm * g / norm, gradient)
    assert_close(used, wanted, 1e-3, scale=config.max_grad_norm)
    moved = jax.tree.map(lambda a, b, g: np.sum((a - b) * g), after.params, state.params, gradient)
    assert all(x < 0 for x in jax.tree.leaves(moved))  # downhill
    assert_close([metrics["critic_loss"], metrics["policy_entropy"]], [critic, entropy], 1e-4)


# The agent


@pytest.fixture(scope="module")
def trained():
    """A few updates on four rooms, and a rollout of the learned agent."""
    env, tasks = jaxrl_envs.make(ROOMS)
    tasks = tasks._replace(sample=lambda key: env.default_params.replace(max_steps_in_episode=30))
    algorithm = make(Config(environments=64, rollout_length=16, hidden=(16,), epsilon=0.5), env, tasks)
    step = quick_jit(algorithm.step)
    state = quick_jit(algorithm.init)(jax.random.key(0))
    for _ in range(30):
        state, metrics = step(state)
    play = quick_jit(lambda state: rollout(env, algorithm.agent, tasks, state.params, state.world, 64))
    _, transitions = play(state)
    return state, jax.device_get(transitions), jax.device_get(metrics)


def test_options_go_on_until_they_terminate(trained):
    _, t, _ = trained
    did = t.extras
    assert (did.previous[1:] == np.where(t.first[1:], did.previous[1:], did.option[:-1])).all()
    assert did.chosen[t.first].all()
    assert (did.option == did.previous)[~did.chosen].all()
    # terminations are drawn with β; 4096 draws, five standard deviations
    going_on = ~t.first
    expected, draws = did.beta[going_on], did.chosen[going_on]
    assert abs(draws.sum() - expected.sum()) < 5 * np.sqrt((expected * (1 - expected)).sum())
    assert len(np.unique(did.option)) == 4


def test_acting_draws_options_terminations_and_actions_independently():
    """Frequencies of terminations, options and actions in one state are those of independent draws."""
    env, count = TMaze(1, "vector"), 40_000
    config = Config(num_options=O, hidden=(5,), epsilon=0.3)
    algorithm = make(config, env, single(env.default_params))
    params = noisy(algorithm.agent.init(jax.random.key(0)), seed=1)
    obs, _ = env.reset_env(jax.random.key(0), env.default_params)
    heads = heads_by_hand(params, obs, config, 4)

    def act(greedy, first):
        inp = ActInput(obs, jnp.int32(0), jnp.zeros(()), jnp.array(first))
        one = lambda key: algorithm.agent.act(params, jnp.int32(1), inp, key, greedy)
        action, option, did = quick_jit(jax.vmap(one))(
            jax.random.split(jax.random.key(0), count if not greedy else 500)
        )
        np.testing.assert_array_equal(option, did.option)
        return np.asarray(action), np.asarray(option), np.asarray(did.chosen)

    beta, policies = float(jax.nn.sigmoid(heads.stop[1])), np.asarray(jax.nn.softmax(heads.logits))
    fresh = np.full(O, 0.1)
    fresh[int(heads.q.argmax())] += 0.7
    expected = np.stack([(1 - beta) * np.eye(O)[1][:, None] * policies, beta * fresh[:, None] * policies])
    action, option, chosen = act(greedy=False, first=False)
    seen = np.bincount((chosen * O + option) * 4 + action, minlength=8 * O) / count
    np.testing.assert_allclose(seen.reshape(2, O, 4), expected, atol=4.5 * 0.5 / count**0.5)
    assert act(greedy=False, first=True)[2].all()
    action, option, chosen = act(greedy=True, first=False)
    assert set(option[chosen]) == {int(heads.q.argmax())}
    assert 0 < chosen.mean() < 1
    np.testing.assert_array_equal(action, policies.argmax(axis=1)[option])


def test_evaluation_plays_first_episodes_greedily():
    """The policy slightly prefers right: greedily this is the shortest way out from every cell."""
    env = Corridor()
    algorithm = make(Config(num_options=2, hidden=(4,), eval_episodes=32), env, single(env.default_params))
    state = algorithm.init(jax.random.key(0))
    bias = state.params["params"]["policies"]["bias"].at[jnp.array([1, 3])].set(0.1)
    state.params["params"]["policies"]["bias"] = bias
    evaluate = quick_jit(algorithm.evaluate)
    one, again, other = (evaluate(state, jax.random.key(k)) for k in (1, 1, 2))
    lengths = np.asarray(one["length"].values).astype(int)
    assert set(lengths) == {1, 2, 3, 4, 5}
    assert_close(one["return"].values, [way_out(5 - n, n) for n in lengths])
    np.testing.assert_array_equal(lengths, again["length"].values)
    assert (lengths != other["length"].values).any()


def test_usage_metrics_count_runs(trained):
    _, _, metrics = trained
    assert {"option_length", "option_run", "termination", "termination_entropy", "option_usage_3"} <= metrics.keys()
    option = jnp.array([[0], [0], [0], [1], [1], [1]])
    previous = jnp.array([[9], [0], [0], [0], [1], [1]])
    chosen = jnp.array([[True], [False], [True], [True], [False], [True]])  # the last: a new episode
    first = jnp.array([[True], [False], [False], [False], [False], [True]])
    beta = jnp.array([[0.9], [0.5], [0.5], [1.0], [0.0], [0.9]])
    found = usage_metrics(option, chosen, beta, 2, previous=previous, first=first)
    mean = {k: float(m.total / m.count) if hasattr(m, "count") else float(m) for k, m in found.items()}
    assert mean["option_length"] == pytest.approx(6 / 4)
    assert mean["option_run"] == pytest.approx(6 / 3)
    assert mean["termination"] == pytest.approx(0.5)
    assert mean["termination_entropy"] == pytest.approx(np.log(2) / 2, rel=1e-5)
    assert (mean["option_usage_0"], mean["option_usage_1"]) == (0.5, 0.5)


def test_it_learns_the_way_through_four_rooms():
    env, tasks = jaxrl_envs.make(ROOMS)
    algorithm = make(Config(), env, tasks)

    @optimised_jit
    def learn(key):
        state = jax.lax.fori_loop(0, 500, lambda _, state: algorithm.step(state)[0], algorithm.init(key))
        return algorithm.step(state)[1]["episode_length"]

    length = learn(jax.random.key(0))
    # the best policy needs 8.4 steps, a random walk over 200
    assert float(length.total / length.count) < 30


@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar", "four-rooms"])
def test_it_runs_unchanged_elsewhere(name):
    """A box, a picture, and an index as observations."""
    env, tasks = jaxrl_envs.make(name)
    algorithm = make(Config(environments=2, rollout_length=3, hidden=(8,)), env, tasks)
    state, metrics = quick_jit(lambda key: algorithm.step(algorithm.init(key)))(jax.random.key(0))
    assert np.isfinite(metrics["critic_loss"])
    assert int(state.iteration) == 1


@pytest.mark.parametrize(
    ("settings", "env", "message"),
    [
        ({"num_options": 0}, ROOMS, "num_options must be at least 1, got 0"),
        ({"temperature": 0.0}, ROOMS, "temperature must be positive, got 0.0"),
        ({"temperature": -1.0}, ROOMS, "temperature must be positive, got -1.0"),
        ({"epsilon": 1.5}, ROOMS, r"epsilon must lie in \[0, 1\], got 1.5"),
        ({"activation": "sine"}, ROOMS, "activation must be one of relu, tanh, silu, got 'sine'"),
        ({"hidden": ()}, ROOMS, "hidden needs at least one layer"),
        ({}, "Pendulum-v1", "option-critic needs discrete actions"),
    ],
)
def test_bad_input(settings, env, message):
    with pytest.raises(UsageError, match=message):
        make(Config(**settings), *jaxrl_envs.make(env))
