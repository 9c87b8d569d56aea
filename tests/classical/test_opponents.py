"""Classical opponents: their choices against slow loops, their samples against exact distributions, their rewards
against exact and published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.bandits import (
    Bandit,
    BanditParams,
    RestlessBandit,
    dependent_tasks,
    independent_tasks,
    restless_tasks,
)
from jaxrl_envs.tabular_mdp import TabularMDP, random_mdp_tasks
from jaxrl_hier.checks import UsageError
from jaxrl_hier.classical import bandits as bandit_opponents
from jaxrl_hier.classical import mdps as mdp_opponents
from jaxrl_hier.classical.mdps import Memory, Posterior
from jaxrl_hier.classical.posteriors import dirichlet, log_gamma, log_gamma_quantiles, logit_beta
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import ActInput
from jaxrl_hier.exact.bandits import finite_horizon_indices, gittins_indices
from jaxrl_hier.exact.tabular import value_sweeps
from tests.close import assert_close

KEY = jax.random.key(0)


def player(agent, env, tasks, length, trials):
    """setting -> tasks [trials] and transitions [length, trials]."""

    @jax.jit
    def play(params):
        worlds = begin_worlds(env, agent, tasks, params, KEY, trials)
        return worlds.task, rollout(env, agent, tasks, params, worlds, length)[1]

    return play


def play(agent, env, tasks, length, trials):
    return player(agent, env, tasks, length, trials)(agent.init(KEY))


# Posteriors


@pytest.mark.parametrize("shape", [1, 2, 7, 300])
def test_gamma_samples_have_their_quantiles(shape):
    from scipy.stats import gamma, kstest

    draws = np.exp(log_gamma(KEY, jnp.full(20_000, shape), log_gamma_quantiles(300)))
    assert kstest(draws, gamma(shape).cdf).pvalue > 0.001


def test_the_quantiles_between_nodes():
    from scipy.special import gammainccinv, gammaincinv, ndtr

    table = np.asarray(log_gamma_quantiles(500))
    between = np.linspace(-5.5, 5.5, table.shape[1])[:-1] + 11 / (table.shape[1] - 1) / 2
    for shape in (1, 2, 20, 500):
        exact = np.where(between < 0, gammaincinv(shape, ndtr(between)), gammainccinv(shape, ndtr(-between)))
        middle = (table[shape, 1:] + table[shape, :-1]) / 2
        np.testing.assert_allclose(np.exp(middle), exact, rtol=5e-4)


def test_beta_and_dirichlet_samples():
    from scipy.stats import beta, kstest

    table = log_gamma_quantiles(100)
    s, f = jnp.full(20_000, 3.0), jnp.full(20_000, 8.0)
    draws = np.asarray(jax.nn.sigmoid(logit_beta(KEY, s, f, table)))
    assert kstest(draws, beta(4, 9).cdf).pvalue > 0.001
    alpha = jnp.array([1.0, 5.0, 2.0])
    draws = np.asarray(dirichlet(KEY, jnp.broadcast_to(alpha, (20_000, 3)), table))
    np.testing.assert_allclose(draws.sum(1), 1, atol=1e-5)
    for i in range(3):
        assert kstest(draws[:, i], beta(alpha[i], 8 - alpha[i]).cdf).pvalue > 0.001


# Bandits


INDICES = gittins_indices(30, 0.9)
FINITE = finite_horizon_indices(30)


def slow_index(name, s, f, t):
    mean = (s + 1) / (s + f + 2)
    if name == "greedy":
        return mean
    if name == "ucb1":
        return mean + 0.3 * np.sqrt(2 * np.log(max(t, 1)) / (s + f + 2))
    return INDICES[s, f] if name == "gittins" else FINITE[30 - t, s, f]


@pytest.mark.parametrize("name", ["greedy", "ucb1", "gittins", "finite_horizon"])
def test_index_players_against_a_slow_loop(name):
    agent = {
        "greedy": bandit_opponents.greedy(4),
        "ucb1": bandit_opponents.ucb1(4, 0.3),
        "gittins": bandit_opponents.gittins(4, 30, 0.9),
        "finite_horizon": bandit_opponents.finite_horizon_gittins(4, 30),
    }[name]
    _, transitions = play(agent, Bandit(4), independent_tasks(4, 30), 60, 3)  # two episodes: the counts begin anew
    for trial in range(3):
        actions, rewards = np.asarray(transitions.action)[:, trial], np.asarray(transitions.reward)[:, trial]
        for t in range(60):
            if t % 30 == 0:
                s, f = np.zeros(4, int), np.zeros(4, int)
            index = slow_index(name, s, f, t % 30)
            assert index[actions[t]] == pytest.approx(index.max(), abs=1e-5)
            s[actions[t]] += int(rewards[t])
            f[actions[t]] += 1 - int(rewards[t])


def choices(agent, carry, draws=20_000):
    """How often each arm is chosen from one carry."""
    arms = len(carry.successes)
    inp = ActInput(jnp.int32(0), jnp.int32(0), jnp.zeros(()), jnp.array(True))
    act = lambda key: agent.act(agent.init(KEY), carry, inp, key, False)[0]
    return np.bincount(jax.vmap(act)(jax.random.split(KEY, draws)), minlength=arms) / draws


def test_samplers_choose_with_the_right_probabilities():
    from scipy.stats import beta

    s, f = np.array([2.0, 0.0, 5.0]), np.array([1.0, 0.0, 6.0])
    carry = bandit_opponents.Counts(jnp.asarray(s), jnp.asarray(f))
    theta = (np.arange(20_000) + 0.5) / 20_000
    best = []
    for i in range(3):
        others = [beta(s[j] + 1, f[j] + 1).cdf(theta) for j in range(3) if j != i]
        best.append(np.mean(beta(s[i] + 1, f[i] + 1).pdf(theta) * np.prod(others, axis=0)))
    assert sum(best) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(choices(bandit_opponents.thompson(3, 20), carry), best, atol=4 * 0.5 / 20_000**0.5)
    one = bandit_opponents.optimistic_thompson(3, 20, samples=1)
    np.testing.assert_allclose(choices(one, carry), best, atol=4 * 0.5 / 20_000**0.5)
    epsilon = bandit_opponents.epsilon_greedy(3, 0.3)
    np.testing.assert_allclose(choices(epsilon, carry), [0.8, 0.1, 0.1], atol=4 * 0.5 / 20_000**0.5)
    np.testing.assert_allclose(choices(bandit_opponents.random(3), carry), 1 / 3, atol=4 * 0.5 / 20_000**0.5)


def test_many_samples_are_close_to_the_mode():
    # modes 2/3, anything, 5/11: the likeliest of very many samples, with the middle arm as a blind guess
    carry = bandit_opponents.Counts(jnp.array([200.0, 500.0]), jnp.array([100.0, 600.0]))
    assert choices(bandit_opponents.optimistic_thompson(2, 1200, samples=30), carry, draws=200)[0] == 1


def test_published_and_reference_numbers_of_bandits():
    """Duan et al., table 1, n = 100 and k = 5; two arms: the references for Wang et al."""
    trials = 1000
    env, tasks = Bandit(5), independent_tasks(5, 100)
    agents = {
        74.7: bandit_opponents.thompson(5, 100),
        78.0: bandit_opponents.ucb1(5, 0.2),
        74.8: bandit_opponents.greedy(5),
        49.9: bandit_opponents.random(5),
    }
    for published, agent in agents.items():
        total = np.asarray(play(agent, env, tasks, 100, trials)[1].reward, np.float64).sum(0)
        error = (2 / trials) ** 0.5 * total.std()  # of the difference to another mean over 1000 tasks
        assert total.mean() == pytest.approx(published, abs=3 * error + 0.05)
    task, transitions = play(bandit_opponents.thompson(2, 100), Bandit(2), dependent_tasks("medium"), 100, trials)
    p = np.asarray(task.probabilities)
    regret = (p.max(1) - np.take_along_axis(p, np.asarray(transitions.action).T, 1).T).sum(0)
    assert regret.mean() == pytest.approx(3.00, abs=float(4 * regret.std() / trials**0.5))


def test_one_arm_is_always_pulled():
    params = BanditParams(probabilities=jnp.array([0.5]), payouts=jnp.ones(1), max_steps_in_episode=10)
    from jaxrl_envs.tasks import single

    _, transitions = play(bandit_opponents.thompson(1, 10), Bandit(1), single(params), 10, 2)
    assert np.all(transitions.action == 0)


# Arms that drift


@pytest.fixture(scope="module")
def restless():
    """By player: actions, rewards and probabilities before each pull, [100, episodes, ...]."""
    env, tasks, played = RestlessBandit(), restless_tasks(), {}
    agents = {
        "rescorla_wagner": bandit_opponents.rescorla_wagner(2, 0.3, 0.1),
        "optimal": bandit_opponents.restless_optimal((0.02, 0.1), grid=101),
        "thompson": bandit_opponents.thompson(2, 100),
    }
    for name, agent in agents.items():
        params = agent.init(KEY)

        def pull(worlds, _, agent=agent, params=params):
            after, t = rollout(env, agent, tasks, params, worlds, 1)
            return after, (t.action[0], t.reward[0], worlds.env_state.probabilities, worlds.carry)

        worlds = begin_worlds(env, agent, tasks, params, KEY, 300)
        played[name] = jax.jit(lambda worlds, pull=pull: jax.lax.scan(pull, worlds, length=100)[1])(worlds)
    return played


def test_rescorla_wagner_against_a_slow_loop(restless):
    action, reward, _, carry = (np.asarray(x) for x in restless["rescorla_wagner"])
    for i in range(3):
        v, learned = np.full(2, 0.5), []
        for t in range(99):
            learned.append(v.copy())
            v[action[t, i]] += 0.3 * (reward[t, i] - v[action[t, i]])
        assert_close(carry[1:, i], learned)  # the carry is what the act before has learned
    agent, inp = (
        bandit_opponents.rescorla_wagner(2, 0.3, 0.1),
        ActInput(jnp.int32(0), jnp.int32(0), 0.0, jnp.array(True)),
    )
    act = lambda key: agent.act(agent.init(KEY), jnp.array([0.6, 0.5]), inp, key, False)[0]
    share = float(jnp.mean(jax.vmap(act)(jax.random.split(KEY, 20_000)) == 0))
    assert share == pytest.approx(1 / (1 + np.exp(-1)), abs=4 * 0.5 / 20_000**0.5)


def test_the_belief_about_a_drifting_arm(restless):
    """Against particles that drift as the environment lets the arm drift, weighted by what was seen."""
    action, reward, _, carry = (np.asarray(x) for x in restless["optimal"])
    grid, rng = (np.arange(101) + 0.5) / 101, np.random.default_rng(0)
    for i in range(3):
        p, fast = rng.random(200_000), rng.random(200_000) < 0.5
        for t in range(12):
            speaks = (action[t, i] == 0) == (reward[t, i] > 0)
            weight = p if speaks else 1 - p
            kept = rng.choice(len(p), len(p), p=weight / weight.sum())
            p, fast = p[kept], fast[kept]
            p = p + np.where(fast, 0.1, 0.02) * rng.normal(size=len(p))
            p = np.abs((p + 1) % 2 - 1)
            belief = carry[t + 2, i] if t + 2 < 100 else None  # of the act that has seen this pull, in the next row
            assert belief.sum() == pytest.approx(1, abs=1e-3)
            assert (belief.sum(0) * grid).sum() == pytest.approx(p.mean(), abs=0.01)
            assert belief[1].sum() == pytest.approx(fast.mean(), abs=0.02)


def test_nobody_beats_the_belief_about_drifting_arms(restless):
    def regret(name):
        action, _, p, _ = (np.asarray(x) for x in restless[name])
        chosen = np.take_along_axis(p, action[..., None], 2)[..., 0]
        return (p.max(2) - chosen).sum(0)

    for name in ("rescorla_wagner", "thompson"):
        error = (regret("optimal").var() + regret(name).var()) ** 0.5 / 300**0.5
        assert regret(name).mean() - regret("optimal").mean() > 3 * error


# Processes


@pytest.fixture(scope="module")
def env():
    return TabularMDP()


def posterior_by_hand(obs, actions, rewards, horizon=10, weight=1e-4):
    """Counts of a trial, step by step."""
    alpha, count, total = np.full((10, 5, 10), weight), np.zeros((10, 5)), np.zeros((10, 5))
    for t in range(len(actions)):
        count[obs[t], actions[t]] += 1
        total[obs[t], actions[t]] += rewards[t]
        if (t + 1) % horizon and t + 1 < len(actions):
            alpha[obs[t], actions[t], obs[t + 1]] += 1
    return alpha, total / (count + weight), count + weight


@pytest.fixture(scope="module")
def greedy_trial(env):
    """Carry before each act and the transitions of a trial of three episodes, by calling the agent step by step."""
    agent, params = mdp_opponents.greedy(env), random_mdp_tasks(3).sample(jax.random.key(5))
    act, step = jax.jit(agent.act, static_argnums=4), jax.jit(env.step_env)
    obs, state = env.reset_env(KEY, params)
    memory, setting = agent.start((), KEY), agent.init(KEY)
    action, reward, rows = jnp.int32(0), jnp.zeros(()), []
    for t in range(30):
        inp = ActInput(obs, action, reward, jnp.array(t == 0))
        action, memory, _ = act(setting, memory, inp, jax.random.fold_in(KEY, t), False)
        before = obs
        obs, state, reward, _, _ = step(jax.random.fold_in(KEY, 100 + t), state, action, params)
        rows.append((int(before), int(action), float(reward), memory))
    return rows


def test_the_posterior_counts_what_happened(greedy_trial):
    obs, actions, rewards, memories = zip(*greedy_trial)
    for t in (1, 9, 10, 29):  # the memory at step t has seen the steps before it
        alpha = posterior_by_hand(obs[: t + 1], actions[: t + 1], rewards[: t + 1])[0]
        seen = posterior_by_hand(obs[:t], actions[:t], rewards[:t])
        assert_close(memories[t].posterior.alpha, alpha)
        assert_close(memories[t].posterior.mean, seen[1])
        assert_close(memories[t].posterior.precision, seen[2])


def test_the_plan_is_made_before_each_episode_and_followed(greedy_trial):
    for t, (obs, action, _, memory) in enumerate(greedy_trial):
        np.testing.assert_array_equal(memory.plan, greedy_trial[t - t % 10][3].plan)
        q = np.asarray(memory.plan[t % 10, obs])
        assert q[action] == q.max()
    start = greedy_trial[20][3]
    sweeps = value_sweeps(start.posterior.transitions, start.posterior.mean, 1.0, 10)
    assert_close(start.plan.max(axis=2), sweeps[:0:-1])


@pytest.mark.rounding
def test_batched_planning_equals_planning_alone(env):
    agent = mdp_opponents.ucrl2(env, 0.2)
    rng = np.random.default_rng(0)
    memories = Memory(
        Posterior(
            jnp.asarray(1.0 + rng.integers(0, 9, (4, 10, 5, 10))),
            jnp.asarray(rng.normal(1, 1, (4, 10, 5)), jnp.float32),
            jnp.asarray(1.0 + rng.integers(0, 50, (4, 10, 5))),
        ),
        jnp.asarray(rng.normal(size=(4, 10, 10, 5)), jnp.float32),
        jnp.array([10, 13, 0, 20], jnp.int32),  # due, not due, due, due
        jnp.zeros(4, jnp.int32),
    )
    inp = ActInput(jnp.arange(4), jnp.zeros(4, jnp.int32), jnp.ones(4), jnp.zeros(4, bool))
    act = lambda memory, inp, key: agent.act(agent.init(KEY), memory, inp, key, False)
    keys = jax.random.split(KEY, 4)
    together = jax.jit(jax.vmap(act))(memories, inp, keys)
    for i in range(4):
        alone = jax.jit(act)(*jax.tree.map(lambda x, i=i: x[i], (memories, inp, keys)))
        assert_close(jax.tree.map(lambda x, i=i: x[i], together), alone)


def test_plausible_transitions_against_a_linear_programme():
    from scipy.optimize import linprog

    rng = np.random.default_rng(0)
    P, values = rng.dirichlet(np.ones(5), (3, 2)), rng.normal(size=5)
    slack = np.array([[0.0, 0.1], [0.5, 1.0], [1.9, 5.0]])
    found = np.asarray(mdp_opponents.plausible(jnp.asarray(P), jnp.asarray(slack), jnp.asarray(values)))
    assert_close(found.sum(-1), 1.0)
    assert found.min() >= -1e-5
    for i in np.ndindex(3, 2):
        # maximise values·q with q = P + up - down, Σ (up + down) ≤ slack
        cost = np.concatenate([-values, values])
        bounds = [(0, None)] * 5 + [(0, p) for p in P[i]]
        balance = np.concatenate([np.ones(5), -np.ones(5)])[None]
        solved = linprog(cost, A_ub=np.ones((1, 10)), b_ub=[slack[i]], A_eq=balance, b_eq=[0], bounds=bounds)
        assert found[i] @ values == pytest.approx(P[i] @ values - solved.fun, abs=1e-5)
        assert np.abs(found[i] - P[i]).sum() <= slack[i] + 1e-5


def test_optimism_grows_with_the_setting(env):
    """With nothing to be optimistic about UCRL2 and BEB differ from the greedy plan by their bonuses alone."""
    inp = ActInput(jnp.int32(0), jnp.int32(0), jnp.zeros(()), jnp.array(True))
    plan = lambda agent: np.asarray(agent.act(agent.init(KEY), agent.start((), KEY), inp, KEY, False)[1].plan)
    assert np.all(plan(mdp_opponents.greedy(env)) == 0)
    np.testing.assert_allclose(plan(mdp_opponents.ucrl2(env, 0.0)), 0)
    # the prior's uniform transitions and equal rewards: c sqrt(4 ln(2 · 10 · 5 / 0.05)) a step
    width = 0.1 * np.sqrt(4 * np.log(100 / 0.05))
    assert_close(plan(mdp_opponents.ucrl2(env, 0.1))[0], 10 * width)
    # 1/2 for each reward, and 2 c H³ k / (S + 1) for k = 9, …, 0 steps to go
    assert_close(plan(mdp_opponents.beb(env, 0.01))[0], 10 / 2 + 2 * 0.01 * 1000 / 11 * 45)


def test_optimism_piles_up_as_in_a_slow_loop(env):
    """State by state, with optimistic transitions that are written over the means."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (10, 5, 10)).astype(np.float32)
    posterior = Posterior(
        jnp.asarray(1 + counts), jnp.asarray(rng.normal(1, 1, (10, 5)), jnp.float32), jnp.full((10, 5), 7.0)
    )
    memory = Memory(posterior, jnp.zeros((10, 10, 5)), jnp.int32(20), jnp.int32(0))
    agent = mdp_opponents.ucrl2(env, 0.1, piling=True)
    inp = ActInput(jnp.int32(0), jnp.int32(0), jnp.zeros(()), jnp.array(True))
    moved = agent.act(agent.init(KEY), memory, inp, KEY, False)[1]
    found, alpha = np.asarray(moved.plan), np.asarray(moved.posterior.alpha, np.float64)

    log = np.log(2 * 10 * 5 * 3 / 0.05)  # the third episode
    R = np.asarray(moved.posterior.mean) + 0.1 * np.sqrt(4 * log / 6)
    P, values = alpha / alpha.sum(2, keepdims=True), np.zeros(10)
    for h in reversed(range(10)):
        order, q = np.argsort(values, kind="stable"), np.zeros((10, 5))
        for s, a in np.ndindex(10, 5):
            width = 0.1 * np.sqrt(40 * log / (alpha[s, a].sum() - 1))
            if P[s, a, order[-1]] + width / 2 > 1:
                q[s, a] = R[s, a] + values[order[-1]]
                continue
            P[s, a, order[-1]] += width / 2
            for worst in order:
                P[s, a, worst] = max(0, P[s, a, worst] - max(0, P[s, a].sum() - 1))
            q[s, a] = R[s, a] + P[s, a] @ values
        assert_close(found[h], q)
        values = q.max(1)
    without = mdp_opponents.ucrl2(env, 0.1)
    assert np.all(np.asarray(without.act(without.init(KEY), memory, inp, KEY, False)[1].plan)[0] < found[0])


def test_published_numbers_of_processes(env):
    """Duan et al., table 2, n = 10."""
    trials, tasks = 300, random_mdp_tasks(10)
    by_epsilon = player(mdp_opponents.epsilon_greedy(env), env, tasks, 100, trials)
    sampled = play(mdp_opponents.psrl(env), env, tasks, 100, trials)
    for published, played in ((100.1, by_epsilon(1.0)), (134.8, by_epsilon(0.0)), (138.1, sampled)):
        total = np.asarray(played[1].reward, np.float64).sum(0)
        error = total.std() * (1 / trials + 1 / 1000) ** 0.5
        assert total.mean() == pytest.approx(published, abs=3 * error + 0.05)


def test_bad_settings(env):
    for build, problem in (
        (lambda: bandit_opponents.epsilon_greedy(2, 1.5), "epsilon must lie in"),
        (lambda: bandit_opponents.ucb1(2, -1), "c must be at least 0"),
        (lambda: bandit_opponents.optimistic_thompson(2, 10, 0), "samples must be at least 1"),
        (lambda: bandit_opponents.greedy(0), "at least one arm"),
        (lambda: mdp_opponents.epsilon_greedy(env, -0.1), "epsilon must lie in"),
        (lambda: mdp_opponents.optimistic_psrl(env, 0), "samples must be at least 1"),
        (lambda: mdp_opponents.ucrl2(env, -1), "scaling must be at least 0"),
        (lambda: mdp_opponents.beb(env, -1), "scaling must be at least 0"),
    ):
        with pytest.raises(UsageError, match=problem):
            build()
