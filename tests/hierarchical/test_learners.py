"""Learners of options: updates against a slow NumPy replay, exact first episodes, convergence to exact values."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.four_rooms import G1, G2, HALLWAYS, NONE, NUM_CELLS, FourRooms, cell_index, four_rooms_tasks
from jaxrl_envs.tasks import Tasks, single
from jaxrl_hier.abstractions.options import Options, concatenate, primitive_options
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.train import RunConfig, init_seeds
from jaxrl_hier.engine.types import ActInput
from jaxrl_hier.exact import smdp
from jaxrl_hier.hierarchical import intra_option_q, option_models, smdp_q, subgoals
from jaxrl_hier.hierarchical.call_and_return import call_and_return, solve_over_options
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS, hallway_options, option_set, validate
from tests.close import assert_close
from tests.compiling import optimised_jit, quick_jit
from tests.probes import Corridor, CorridorParams

GAMMA = 0.9
CORNER = int(cell_index(1, 1))
GOAL = int(cell_index(*G1))
OTHERS = np.arange(NUM_CELLS) != GOAL


@pytest.fixture(scope="module")
def env():
    return FourRooms()


@pytest.fixture(scope="module")
def uniform_start(env):
    return single(env.default_params.replace(start=np.int32(NONE)))


@pytest.fixture(scope="module")
def short(env):
    """Some episodes reach the goal and some the time limit."""
    return single(env.default_params.replace(start=np.int32(NONE), max_steps_in_episode=40))


@pytest.fixture(scope="module")
def sets(env):
    hallways, primitives = hallway_options(env), primitive_options(NUM_CELLS, 4)
    return {"hallway": hallways, "both": concatenate(primitives, hallways)}


def random_options(seed, deterministic):
    """Three options that stop at random anywhere and may not start everywhere, over the states of four rooms."""
    rng = np.random.default_rng(seed)
    policy = np.eye(4)[rng.integers(4, size=(3, NUM_CELLS))]
    if not deterministic:
        policy = rng.dirichlet(np.ones(4), (3, NUM_CELLS))
    initiation = rng.random((3, NUM_CELLS)) < 0.6
    initiation[0] = True
    return validate(Options(initiation, policy, rng.uniform(0.05, 0.9, (3, NUM_CELLS))))


def trace(algorithm, env, tasks, steps, seed=1, params=None):
    """The state after `steps` steps and the transitions [steps, B, ...] that it learned from; first `params`."""

    def step(state, _):
        _, transitions = rollout(env, algorithm.agent, tasks, state.params, state.world, 1)
        return algorithm.step(state)[0], jax.tree.map(lambda x: x[0], transitions)

    begin = lambda key: algorithm.init(key) if params is None else algorithm.init(key).replace(params=params)
    state, transitions = optimised_jit(lambda key: jax.lax.scan(step, begin(key), length=steps))(jax.random.key(seed))
    return jax.device_get((state.params, state.learner)), jax.device_get(transitions)


def rows(transitions):
    """The transitions one by one, in the order in which they are learned from."""
    for i, b in np.ndindex(transitions.reward.shape):
        yield b, jax.tree.map(lambda x, i=i, b=b: x[i, b], transitions)


def executed(transitions, options):
    """What the options did: (t, option, start, rewards, stopped) after each step, from the transitions alone."""
    started, rewards = {}, {}
    for b, t in rows(transitions):
        option = t.extras.option
        if b not in started:
            started[b], rewards[b] = int(t.obs), []
            assert options.initiation[option, t.obs]
        rewards[b].append(float(t.reward))
        stops = t.extras.draw < options.termination[option, t.next_obs]
        yield t, option, started[b], list(rewards[b]), bool(stops or t.terminated or t.truncated)
        if stops or t.terminated or t.truncated:
            del started[b]


# One update is the textbook's


def first_values(options):
    """A table [S, O] whose largest values are often of options that may not start there."""
    return np.random.default_rng(2).normal(size=options.initiation.T.shape).astype(np.float32)


@pytest.mark.parametrize(("environments", "given"), [(1, False), (3, True)])
def test_smdp_updates(env, short, environments, given):
    options = random_options(0, deterministic=False) if given else None
    config = smdp_q.Config(step_size=0.3, epsilon=0.5, environments=environments)
    algorithm = smdp_q.make(config, env, short, options)
    options = jax.device_get(option_set("both", options, env, short))
    q = first_values(options)
    (learned, _), transitions = trace(algorithm, env, short, 1500, params=q)
    durations = set()
    for t, option, start, rewards, stopped in executed(transitions, options):
        assert options.policy[option, t.obs, t.action] > 0
        if stopped:
            following = 0.0 if t.terminated else q[t.next_obs, options.initiation[:, t.next_obs]].max()
            k = len(rewards)
            target = sum(GAMMA**i * r for i, r in enumerate(rewards)) + GAMMA**k * following
            q[start, option] += config.step_size * (target - q[start, option])
            durations.add(k)
    assert transitions.terminated.any()
    assert transitions.truncated.any()
    assert max(durations) > 4
    assert_close(learned, q)


@pytest.mark.parametrize(("behaviour", "given"), [("options", True), ("random", False)])
def test_intra_option_updates(env, short, behaviour, given):
    options = random_options(1, deterministic=True) if given else None
    config = intra_option_q.Config(step_size=0.3, epsilon=0.5, behaviour=behaviour, environments=1 + given)
    algorithm = intra_option_q.make(config, env, short, options)
    options = jax.device_get(option_set("both", options, env, short))
    q = first_values(options)
    (learned, _), transitions = trace(algorithm, env, short, 1500, params=q)
    for _, t in rows(transitions):
        before = q.copy()
        for o in range(q.shape[1]):
            runs = options.initiation[o, t.obs] or options.termination[o, t.obs] < 1
            if runs and options.policy[o, t.obs, t.action] == 1:
                beta = options.termination[o, t.next_obs]
                best = before[t.next_obs, options.initiation[:, t.next_obs]].max()
                u = 0.0 if t.terminated else (1 - beta) * before[t.next_obs, o] + beta * best
                q[t.obs, o] += config.step_size * (t.reward + GAMMA * u - before[t.obs, o])
    assert transitions.terminated.any()
    assert transitions.truncated.any()
    assert_close(learned, q)
    if behaviour == "random":
        counts = np.bincount(transitions.action.ravel(), minlength=4)
        np.testing.assert_allclose(counts / counts.sum(), 0.25, atol=0.05)


@pytest.mark.parametrize(
    ("method", "sample_average"), [("intra-option", False), ("smdp", False), ("smdp", True)], ids=str
)
def test_model_updates(env, short, method, sample_average):
    noisy, tasks = option_models.noisy_rewards(env, short)
    options = random_options(2, deterministic=method == "intra-option")
    config = option_models.Config(method, sample_average=sample_average, environments=2)
    algorithm = option_models.make(config, noisy, tasks, options)
    options = jax.device_get(options)
    (learned, counts), transitions = trace(algorithm, noisy, tasks, 500)
    reward, transition = (np.zeros(x.shape) for x in learned)
    stops = np.zeros(counts.shape, int)
    for t, option, start, rewards, stopped in executed(transitions, options):
        arrived = np.eye(NUM_CELLS)[t.next_obs]
        stopped = stopped and not t.truncated
        stops[option, start] += stopped
        if method == "smdp" and stopped:
            alpha = 1 / stops[option, start] if sample_average else config.step_size
            total = sum(GAMMA**i * r for i, r in enumerate(rewards))
            reward[option, start] += alpha * (total - reward[option, start])
            transition[option, start] += alpha * (GAMMA ** len(rewards) * arrived - transition[option, start])
        if method == "intra-option":
            old_reward, old_transition = reward.copy(), transition.copy()
            for o in np.flatnonzero(options.policy[:, t.obs, t.action] == 1):
                beta = 1.0 if t.terminated else options.termination[o, t.next_obs]
                target = t.reward + GAMMA * (1 - beta) * old_reward[o, t.next_obs]
                arrival = GAMMA * (1 - beta) * old_transition[o, t.next_obs] + GAMMA * beta * arrived
                reward[o, t.obs] += config.step_size * (target - old_reward[o, t.obs])
                transition[o, t.obs] += config.step_size * (arrival - old_transition[o, t.obs])
    np.testing.assert_array_equal(counts, stops)
    assert_close(learned.reward, reward)
    assert_close(learned.transition, transition)


def test_subgoal_updates(env, short):
    noisy, tasks = option_models.noisy_rewards(env, short)
    config = subgoals.Config(subgoal_value=10.0, step_size=0.3)
    algorithm = subgoals.make(config, noisy, tasks)
    initiation, termination, value = jax.device_get(subgoals.hallway_subgoals(env, 10.0))
    (learned, _), transitions = trace(algorithm, noisy, tasks, 500)
    q = np.zeros(learned.shape)
    for _, t in rows(transitions):
        before = q.copy()
        for o in np.flatnonzero(initiation[:, t.obs]):
            beta = 1.0 if t.terminated else termination[o, t.next_obs]
            u = (1 - beta) * before[o, t.next_obs].max() + beta * value[o, t.next_obs]
            q[o, t.obs, t.action] += config.step_size * (t.reward + GAMMA * u - before[o, t.obs, t.action])
    assert_close(learned, q)


def test_noisy_rewards_pay_the_mean_of_the_state_that_is_left():
    env, tasks = option_models.noisy_rewards(Corridor(), single(CorridorParams()), scale=0.0)
    params = tasks.sample(jax.random.key(0))
    for cell, action in np.ndindex(5, 2):
        state = (jnp.int32(cell), jnp.int32(0))
        _, _, plain, _, _ = env.env.step_env(jax.random.key(1), state, action, params.task)
        _, _, reward, _, _ = env.step_env(jax.random.key(1), state, action, params)
        np.testing.assert_allclose(reward - plain, params.mean[cell, action], rtol=1e-5)


def test_noisy_rewards_keep_their_means_while_tasks_follow_one_another():
    longer = lambda key, task: task.replace(max_steps_in_episode=task.max_steps_in_episode + 1)
    inner = Tasks(lambda key: CorridorParams(max_steps_in_episode=jnp.int32(7)), longer)
    _, tasks = option_models.noisy_rewards(Corridor(), inner)
    params = tasks.sample(jax.random.key(0))
    after = tasks.following(jax.random.key(1), params)
    assert after.task.max_steps_in_episode == 8
    np.testing.assert_array_equal(after.mean, params.mean)


def test_subgoals_pay_at_their_targets_alone(env):
    wanted = subgoals.hallway_subgoals(env, 7.0)
    targets = [cell_index(*HALLWAYS[name.split(" to ")[1]]) for name in HALLWAY_OPTIONS]
    np.testing.assert_array_equal(wanted.value, 7.0 * np.eye(NUM_CELLS)[np.array(targets)])
    assert (wanted.termination[np.arange(8), np.array(targets)] == 1).all()


# Behaviour


def test_acting_is_call_and_return():
    """With frozen values, the frequencies of all choices, and the independence of the four draws."""
    options, state, count, epsilon = random_options(3, deterministic=False), 17, 40_000, 0.4
    # option 1 may not start here, and its value is the highest
    options = options._replace(initiation=options.initiation.at[:, state].set(jnp.array([True, False, True])))
    q = jnp.zeros((NUM_CELLS, 3)).at[state].set(jnp.array([0.5, 2.0, 1.0]))
    agent = call_and_return(options, lambda key: q, lambda q, s: q[s], epsilon=epsilon, discount=GAMMA)
    before = agent.start(q, None)._replace(option=jnp.int32(1), start=jnp.int32(5), reward=jnp.float32(0.7))
    before = before._replace(discount=jnp.float32(GAMMA**2))

    def act(agent, greedy=False, draw=0.0, first=False, option=1, count=count):
        inp = ActInput(jnp.int32(state), jnp.int32(0), jnp.float32(0.2), jnp.array(first))
        held = before._replace(draw=jnp.float32(draw), option=jnp.int32(option))
        one = lambda key: agent.act(q, held, inp, key, greedy)
        action, running, _ = quick_jit(jax.vmap(one))(jax.random.split(jax.random.key(0), count))
        return np.asarray(action), jax.device_get(running)

    # it stops, since the draw was below every β: option ε-greedy among 0 and 2, then an action of that option
    action, running = act(agent)
    policy = np.asarray(options.policy[:, state])
    expected = np.array([0.5 * epsilon, 0.0, 1 - 0.5 * epsilon])[:, None] * policy
    cells = running.option * 4 + action
    seen = np.bincount(cells, minlength=12).reshape(3, 4) / count
    np.testing.assert_allclose(seen, expected, atol=5 * 0.5 / count**0.5)
    assert (running.start == state).all()
    assert (running.reward == 0).all()
    assert (running.discount == 1).all()
    for cell in np.flatnonzero(expected.ravel() > 0.02):  # whether it will stop next has nothing to do with any of them
        draws = running.draw[cells == cell]
        assert abs(draws.mean() - 0.5) < 5 * 0.289 / len(draws) ** 0.5
    # it goes on, since the draw was above every β, and keeps count; an episode's first step begins anew all the same
    _, running = act(agent, draw=0.99)
    assert (running.option == 1).all()
    assert (running.start == 5).all()
    np.testing.assert_allclose(running.reward, 0.7 + GAMMA**2 * 0.2, rtol=1e-6)
    np.testing.assert_allclose(running.discount, GAMMA**3, rtol=1e-6)
    assert (act(agent, draw=0.99, first=True, count=200)[1].option != 1).all()
    assert (act(agent, greedy=True, count=200)[1].option == 2).all()
    # with interruption it is left for a better one that may start, and for no other
    leaving = call_and_return(options, lambda key: q, lambda q, s: q[s], epsilon=0.0, discount=GAMMA, interrupt=True)
    for option, then in ((0, 2), (2, 2), (1, 1)):
        _, running = act(leaving, draw=0.99, option=option, count=20)
        assert (running.option == then).all()
        assert (running.start == (5 if option == then else state)).all()  # it goes on, or another one begins


@pytest.fixture(scope="module")
def first_lengths(env):
    """First episodes' lengths of 1000 learners by option set and goal; their tables are zero until they end."""
    tasks, lengths = four_rooms_tasks(env, [G1, G2]), {}
    for name in ("hallway", "both"):
        algorithm = smdp_q.make(smdp_q.Config(options=name, recorded_episodes=1), env, tasks)
        step = jax.vmap(algorithm.step)
        unfinished = lambda state: jnp.any(state.memory.count == 0)
        go_on = lambda state, step=step: step(state)[0]
        play = lambda state, go_on=go_on, unfinished=unfinished: jax.lax.while_loop(unfinished, go_on, state)
        state = optimised_jit(play)(init_seeds(algorithm, RunConfig(seeds=1000)))
        goals = np.asarray(state.world.task.goal[:, 0])
        for goal in np.unique(goals):
            lengths[name, int(goal)] = np.asarray(state.memory.lengths)[goals == goal, 0, 0]
    return lengths


@pytest.mark.parametrize(
    ("options", "goal", "steps"),
    [("hallway", G1, 58.6), ("both", G1, 76.3), ("hallway", G2, 204.2), ("both", G2, 199.1)],
)
def test_first_episode_is_random_over_the_options(first_lengths, options, goal, steps):
    lengths = first_lengths[options, int(cell_index(*goal))]
    assert abs(lengths.mean() - steps) < 3 * lengths.std() / np.sqrt(len(lengths))


def test_interrupting_leaves_an_option_where_another_is_better(env, sets):
    """With the frozen optimal table of hallway options, interruption happens exactly where the table prefers another
    option, earns what the exact solution says, and is never worse than no interruption."""
    hallway = sets["hallway"]
    task = env.default_params.replace(goal=cell_index(3, 9), start=np.int32(NONE))  # amid a room, far from hallways
    P, R = env.model(task)
    models = smdp.option_models(P, R, hallway, GAMMA)
    q = smdp.option_values(models, jnp.max(smdp.smdp_optimal_values(models, hallway.initiation), axis=1))
    config = intra_option_q.Config("hallway", interrupt=True, step_size=0.0, epsilon=0.0, recorded_episodes=0)
    algorithm = intra_option_q.make(config, env, single(task))

    def step(state, _):
        _, t = rollout(env, algorithm.agent, single(task), state.params, state.world, 1)
        return algorithm.step(state)[0], jax.tree.map(lambda x: x[0, 0], t)

    state = replace(algorithm.init(jax.random.key(0)), params=q)
    t, q, options = jax.device_get((optimised_jit(lambda s: jax.lax.scan(step, s, length=5000)[1])(state), q, hallway))
    best = np.where(options.initiation.T, q, -np.inf).max(axis=1)
    assert (q[t.obs, t.extras.option] == best[t.obs]).all()
    going_on = ~t.first[1:] & ~(t.extras.draw[:-1] < options.termination[t.extras.option[:-1], t.obs[1:]])
    left = going_on & (t.extras.option[1:] != t.extras.option[:-1])
    assert left.sum() > 50

    _, values = solve_over_options(P, R, hallway, q, GAMMA)
    expected, better = solve_over_options(P, R, hallway, q, GAMMA, interrupt=True)
    assert (better >= values - 1e-5).all()
    assert (better[t.obs] > values[t.obs] + 1e-3).all()
    ends = np.flatnonzero(t.terminated)
    lengths, starts = np.diff(ends), t.obs[ends[:-1] + 1]
    excess = lengths - expected[starts]
    assert abs(excess.mean()) < 3 * excess.std() / np.sqrt(len(excess))


# Convergence, and evaluation


# to cell 3 or the end, to cell 0, and one step right from even cells
CORRIDOR_OPTIONS = Options(
    initiation=np.array([[1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0], [1, 0, 1, 0, 1, 0]]),
    policy=np.eye(2)[np.array([[1] * 6, [0] * 6, [1] * 6])],
    termination=np.array([[1, 0, 0, 1, 0, 1], [1, 0, 0, 0, 0, 1], [1] * 6]),
)


@pytest.mark.parametrize("learner", [smdp_q, intra_option_q], ids=["smdp", "intra-option"])
def test_finds_the_exact_values_where_nothing_is_random(learner):
    env = Corridor()
    settings = {"behaviour": "random"} if learner is intra_option_q else {}
    config = learner.Config(step_size=1.0, epsilon=1.0, discount=0.8, **settings)
    algorithm = learner.make(config, env, single(env.default_params), CORRIDOR_OPTIONS)
    (learned, _), _ = trace(algorithm, env, single(env.default_params), 3000)
    options = validate(CORRIDOR_OPTIONS, env.model(None)[0])
    exact = smdp.smdp_optimal_values(smdp.option_models(*env.model(None), options, 0.8), options.initiation)
    may_start = np.isfinite(exact)
    assert may_start.sum() == 12
    assert_close(learned[may_start], exact[may_start])


@pytest.mark.parametrize(
    "config",
    [
        option_models.Config(step_size=1.0, discount=0.8),
        option_models.Config("smdp", step_size=1.0, discount=0.8),
        option_models.Config("smdp", sample_average=True, discount=0.8),
    ],
    ids=["intra-option", "smdp", "smdp-average"],
)
def test_finds_the_exact_models_where_nothing_is_random(config):
    env, tasks = option_models.noisy_rewards(Corridor(), single(CorridorParams()), scale=0.0)
    algorithm = option_models.make(config, env, tasks, CORRIDOR_OPTIONS)
    state = jax.lax.fori_loop(0, 2000, lambda _, s: algorithm.step(s)[0], algorithm.init(jax.random.key(0)))
    measured = algorithm.evaluate(state, jax.random.key(0))
    assert measured["reward_error_max"].values.max() < 1e-4
    assert measured["transition_error_max"].values.max() < 1e-5


def learn(module, config, env, tasks, *, seeds, phases, steps):
    """States of `seeds` learners after `steps` steps with each of the falling step sizes `phases`."""

    @optimised_jit
    def run(state, step_size):
        step = module.make(replace(config, step_size=step_size), env, tasks).step
        return jax.lax.fori_loop(0, steps, lambda _, s: jax.vmap(step)(s)[0], state)

    algorithm = module.make(config, env, tasks)
    state = init_seeds(algorithm, RunConfig(seeds=seeds))
    for step_size in phases:
        state = run(state, step_size)
    return algorithm, state


@pytest.mark.parametrize(
    ("module", "config", "largest", "mean"),
    [
        (intra_option_q, intra_option_q.Config(behaviour="random", recorded_episodes=0), 0.04, 0.01),
        (smdp_q, smdp_q.Config("hallway", epsilon=1.0, recorded_episodes=0), 0.08, 0.015),
    ],
    ids=["intra-option", "smdp"],
)
def test_converges_to_the_optimal_option_values(env, uniform_start, sets, module, config, largest, mean):
    """Mean of 8 learners with falling step sizes; the best reachable value from any state is 1."""
    _, state = learn(module, config, env, uniform_start, seeds=8, phases=(0.2, 0.05, 0.0125), steps=100_000)
    options = sets[config.options]
    models = smdp.option_models(*env.model(env.default_params), options, GAMMA)
    exact = np.asarray(smdp.smdp_optimal_values(models, options.initiation))
    may_start = np.isfinite(exact) & OTHERS[:, None]
    error = np.abs(np.asarray(state.params).mean(axis=0) - exact)[may_start]
    assert error.max() < largest
    assert error.mean() < mean


@pytest.mark.parametrize(
    ("config", "phases"),
    [
        (option_models.Config(), (0.25, 0.05, 0.01)),
        (option_models.Config("smdp", sample_average=True), (0.0, 0.0, 0.0)),
    ],
    ids=["intra-option", "smdp"],
)
def test_models_approach_the_exact_ones(env, config, phases):
    """Noisy rewards with different means for each learner. For the hallway options rewards of about -3 are learned to
    within 0.2, and the worst predicted probabilities to within 0.05."""
    anywhere = single(env.default_params.replace(goal=np.int32(NONE), start=np.int32(NONE), max_steps_in_episode=100))
    noisy, tasks = option_models.noisy_rewards(env, anywhere)
    algorithm, state = learn(option_models, config, noisy, tasks, seeds=4, phases=phases, steps=40_000)
    measured = jax.jit(jax.vmap(algorithm.evaluate, (0, None)))(state, jax.random.key(0))
    assert measured["reward_error"].values.shape == (4, 1, 12)
    assert measured["reward_error"].values[..., 4:].mean() < 0.2
    assert measured["transition_error"].values[..., 4:].mean() < 0.05
    assert (measured["reward_error"].values <= measured["reward_error_max"].values).all()
    assert (measured["options_stopped"].values > 30_000).all()


def test_subgoals_find_the_hallway_options(env):
    anywhere = single(env.default_params.replace(goal=np.int32(NONE), start=np.int32(NONE), max_steps_in_episode=100))
    algorithm, state = learn(
        subgoals, subgoals.Config(), env, anywhere, seeds=4, phases=(0.2, 0.05, 0.0125), steps=60_000
    )
    evaluate = jax.jit(jax.vmap(algorithm.evaluate, (0, None)))
    measured = evaluate(state, jax.random.key(0))
    assert measured["value_error"].values.max() < 0.04
    assert measured["policy_loss"].values.max() < 0.01
    assert measured["policy_loss"].values.min() > -1e-4
    found = subgoals.learned_options(state.params[0], subgoals.hallway_subgoals(env))
    validate(found, env.transitions)

    # the exact tables are the hallway options, which nothing can improve upon
    P, R = env.model(anywhere.sample(None))
    exact = subgoals.exact_values(P, R, subgoals.hallway_subgoals(env), GAMMA)
    same = subgoals.learned_options(exact, subgoals.hallway_subgoals(env))
    assert np.mean(same.policy == hallway_options(env).policy) > 0.99  # but for equally good actions
    measured = evaluate(state.replace(params=jnp.broadcast_to(exact, state.params.shape)), jax.random.key(0))
    assert measured["value_error"].values.max() < 1e-4
    assert measured["policy_loss_max"].values.max() < 1e-4
    assert len(HALLWAY_OPTIONS) == measured["value_error"].values.shape[-1]


@pytest.mark.parametrize(("goal", "hallway", "both"), [(G1, 25.93, 25.86), (G2, 56.96, 30.08)])
def test_evaluation_of_the_optimal_tables(env, sets, goal, hallway, both):
    task = env.default_params.replace(goal=cell_index(*goal))
    for name, steps in (("hallway", hallway), ("both", both)):
        models = smdp.option_models(*env.model(task), sets[name], GAMMA)
        exact = smdp.smdp_optimal_values(models, sets[name].initiation)
        algorithm = smdp_q.make(smdp_q.Config(name, recorded_episodes=2), env, single(task))
        state = replace(algorithm.init(jax.random.key(0)), params=jnp.maximum(exact, -1.0))
        measured = jax.jit(algorithm.evaluate)(state, jax.random.key(0))
        assert measured["steps"].values == pytest.approx(steps, abs=0.01)
        assert_close(measured["steps_from"].values[0, CORNER], measured["steps"].values[0])
        assert_close(measured["value"].values[0], np.max(exact, axis=1))
        assert measured["training_length"].values.shape == (1, 2)


@pytest.mark.rounding
def test_settings_can_be_swept(env, short):
    """A traced setting, under jit and vmap, gives the same result as the number."""

    def run(config, key):
        algorithm = smdp_q.make(config, env, short)
        return jax.lax.fori_loop(0, 300, lambda _, s: algorithm.step(s)[0], algorithm.init(key)).params

    key = jax.random.key(0)
    sweep = jax.jit(jax.vmap(lambda a, e: run(smdp_q.Config(step_size=a, epsilon=e), key)))
    learned = sweep(jnp.array([0.5, 0.25]), jnp.array([0.1, 0.3]))
    assert_close(learned[1], jax.jit(run, static_argnums=0)(smdp_q.Config(step_size=0.25, epsilon=0.3), key))
    assert not np.array_equal(learned[0], learned[1])


# What a user can get wrong


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (smdp_q, {"options": "hallways"}, "unknown options 'hallways'; nearest: hallway"),
        (smdp_q, {"step_size": 2.0}, r"step_size must lie in \[0, 1\], got 2.0"),
        (intra_option_q, {"behaviour": "uniform"}, "behaviour must be one of options, random, got 'uniform'"),
        (intra_option_q, {"environments": -1}, "environments must be positive"),
        (option_models, {"method": "intra"}, "method must be one of intra-option, smdp, got 'intra'"),
        (option_models, {"sample_average": True}, "sample_average is for method='smdp'"),
        (subgoals, {"subgoal_value": 0.0}, "subgoal_value must be positive, got 0.0"),
    ],
)
def test_bad_settings(env, module, settings, message):
    with pytest.raises(UsageError, match=message):
        module.make(module.Config(**settings), env, single(env.default_params))


def test_bad_options(env, uniform_start):
    make = lambda module, options: module.make(module.Config(), env, uniform_start, options)
    for module in (intra_option_q, option_models):
        with pytest.raises(UsageError, match=r"needs deterministic options, option 0 has policy \[.*\] in state 0"):
            make(module, random_options(0, deterministic=False))
    make(smdp_q, random_options(0, deterministic=False))
    with pytest.raises(UsageError, match=r"\(states, actions\) = \(104, 4\) as in FourRooms, got \(6, 2\)"):
        make(smdp_q, CORRIDOR_OPTIONS)
    turned = hallway_options(env)._replace(termination=jnp.zeros((8, NUM_CELLS)))
    with pytest.raises(UsageError, match="policy must be a distribution over actions wherever an option can run"):
        make(smdp_q, turned)
    corridor, tasks = Corridor(), single(CorridorParams())
    with pytest.raises(UsageError, match="hallways exist in four rooms only, not in Corridor: use options='repeats'"):
        smdp_q.make(smdp_q.Config(), corridor, tasks)
    smdp_q.make(smdp_q.Config("primitive"), corridor, tasks)
    with pytest.raises(UsageError, match="hallways exist in four rooms only"):
        subgoals.make(subgoals.Config(), corridor, tasks)
    wrong = subgoals.hallway_subgoals(env)._replace(value=jnp.ones((8, 5)))
    with pytest.raises(UsageError, match=r"value must be \[options, states\] with 104 states, got shape \(8, 5\)"):
        subgoals.make(subgoals.Config(), env, uniform_start, wrong)
