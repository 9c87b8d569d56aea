"""PEARL: product of Gaussians, losses and their gradients, contexts, adaptation, bad settings."""

import dataclasses
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl_envs
from jaxrl_envs.point_robot import SparsePointRobot, best_return, half_circle_goals, point_robot_tasks
from jaxrl_envs.tasks import single
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.replay import Places, Ring, read
from jaxrl_hier.engine.rollout import play_episodes
from jaxrl_hier.engine.types import Transition
from jaxrl_hier.flat.sac import squashed_sample
from jaxrl_hier.learning.distributions import DiagonalGaussian
from jaxrl_hier.learning.networks import MLP
from jaxrl_hier.learning.off_policy import ensemble, ensemble_init
from jaxrl_hier.meta import pearl
from jaxrl_hier.meta.pearl import PUBLISHED, Batch, Config, Networks, losses
from jaxrl_hier.meta.pearl_encoder import Encoder, context_encoder, product_of_gaussians, standard_normal
from jaxrl_hier.meta.pearl_replay import TaskReplay, sample_slots
from tests.close import assert_close
from tests.compiling import optimised_jit, quick_jit
from tests.rings import stored

TINY = Config(
    train_tasks=4,
    tasks_per_iteration=2,
    initial_steps=20,
    prior_steps=20,
    posterior_steps=40,
    extra_posterior_steps=20,
    updates=2,
    meta_batch_size=3,
    batch_size=8,
    context_size=6,
    latent_size=3,
    hidden=(8,),
    encoder_hidden=(8,),
    capacity=4 * 200,
    eval_tasks=5,
    eval_episodes=3,
    eval_exploration_episodes=1,
)


def config(**settings):
    return dataclasses.replace(TINY, **settings)


# --- inference -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def factors():
    key_mean, key_variance = jax.random.split(jax.random.key(0))
    return jax.random.normal(key_mean, (7, 3)), jnp.exp(jax.random.normal(key_variance, (7, 3)))


def test_product_of_gaussians_is_the_normalised_product_of_densities(factors):
    mean, variance = factors
    belief = product_of_gaussians(mean, variance, jnp.ones(7, bool))
    z = np.linspace(-4, 4, 20_001)[:, None]
    for i in range(3):
        log_density = -0.5 * np.sum((z - mean[:, i]) ** 2 / variance[:, i], axis=1)
        density = np.exp(log_density - log_density.max())
        density /= density.sum()
        center = np.sum(z[:, 0] * density)
        assert belief.mean[i] == pytest.approx(center, abs=1e-4)
        assert np.exp(2 * belief.log_std[i]) == pytest.approx(np.sum((z[:, 0] - center) ** 2 * density), rel=1e-3)


def test_product_of_gaussians_in_closed_form(factors):
    mean, variance = factors
    all_of_them = jnp.ones(7, bool)
    belief = product_of_gaussians(mean, variance, all_of_them)
    order = jax.random.permutation(jax.random.key(1), 7)
    permuted = product_of_gaussians(mean[order], variance[order], all_of_them)
    assert_close(permuted, belief)
    equal = product_of_gaussians(jnp.full((5, 3), 0.7), jnp.full((5, 3), 0.4), jnp.ones(5, bool))
    assert_close(equal.mean, 0.7)
    assert_close(jnp.exp(2 * equal.log_std), 0.4 / 5)  # σ² / N
    nothing = product_of_gaussians(mean, variance, jnp.zeros(7, bool))
    np.testing.assert_array_equal(nothing.mean, 0)
    np.testing.assert_array_equal(nothing.log_std, 0)
    absent = product_of_gaussians(mean, variance, jnp.arange(7) < 4)
    fewer = product_of_gaussians(mean[:4], variance[:4], jnp.ones(4, bool))
    assert_close(absent, fewer)
    sharp = product_of_gaussians(jnp.ones((2, 1)), jnp.zeros((2, 1)), jnp.ones(2, bool))
    assert_close(jnp.exp(2 * sharp.log_std), 0.5e-7, 1e-4)  # the bound of 1e-7
    assert_close(sharp.mean, 1.0)


@pytest.mark.rounding
@pytest.mark.parametrize("variant", [{}, {"deterministic": True}, {"recurrent": True}])
def test_encoders(variant):
    encoder = context_encoder((8,), 3, **variant)
    params = encoder.init(jax.random.key(0), 5)
    context = jax.random.normal(jax.random.key(1), (2, 6, 5))
    infer = quick_jit(encoder.infer)
    known = infer(params, context, jnp.array([6, 4]))
    assert known.mean.shape == (2, 3)
    assert_close(known, infer(params, context.at[1, 4:].set(9.0), jnp.array([6, 4])))  # steps that do not count
    prior = infer(params, context, jnp.array([0, 0]))
    np.testing.assert_array_equal(prior.mean, 0)
    np.testing.assert_array_equal(prior.log_std, 0)
    backwards = infer(params, context[:, ::-1], jnp.array([6, 6]))
    whole = infer(params, context, jnp.array([6, 6]))
    if variant == {"recurrent": True}:
        assert np.abs(backwards.mean - whole.mean).max() > 1e-3
    else:
        assert_close(backwards, whole)
    drawn = encoder.sample(whole, jax.random.key(2))
    assert np.array_equal(drawn, whole.mean) == (variant == {"deterministic": True})


# --- losses --------------------------------------------------------------------------------------------------------

M, N, S = 3, 6, 8


@pytest.fixture(scope="module")
def batch():
    keys = iter(jax.random.split(jax.random.key(3), 6))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    ended = jnp.zeros((M, S), bool).at[0, :3].set(True)
    return Batch(
        normal(M, N, 5),
        jnp.full(M, N),
        normal(M, S, 2),
        jnp.tanh(normal(M, S, 2)),
        normal(M, S),
        ended,
        normal(M, S, 2),
    )


def learning(**settings):
    """Settings, a model whose values are not scaled, parameters, and other parameters for the target network."""
    changed = config(**settings)
    actor, critic = pearl.modules_of(changed, 2)
    model = pearl.model_of(dataclasses.replace(changed, reward_scale=1.0), 2)
    keys = jax.random.split(jax.random.key(4), 6)
    params = Networks(
        actor.init(keys[0], jnp.zeros(5)),
        ensemble_init(critic, keys[1], 2, jnp.zeros(7)),
        critic.init(keys[2], jnp.zeros(5)),
        model.encoder.init(keys[3], 5),
        standard_normal(3),
    )
    slow = critic.init(keys[4], jnp.zeros(5))
    if changed.critic_target == "critics":
        slow = ensemble_init(critic, keys[5], 2, jnp.zeros(7))
    return changed, model, params, slow


REACHES = {"critics": {"critics", "encoder"}, "kl": {"encoder"}, "value": {"value"}, "actor": {"actor"}}
VARIANTS = [{}, {"critic_target": "critics"}, {"deterministic_latent": True}, {"recurrent_encoder": True}]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_each_loss_reaches_its_networks_and_no_others(variant, batch):
    changed, model, params, slow = learning(**variant)
    terms = lambda params: losses(changed, model, params, slow, batch, jax.random.key(5))[0]
    gradients = quick_jit(jax.jacrev(terms))(params)
    expected = REACHES.keys() - {"kl"} if "deterministic_latent" in variant else REACHES.keys()
    assert gradients.keys() == (expected - {"value"} if "critic_target" in variant else expected)
    for term, gradient in gradients.items():
        reached = {
            name
            for name in params._fields
            if any(np.abs(x).max() > 0 for x in jax.tree.leaves(getattr(gradient, name)))
        }
        assert reached == REACHES[term], term


@pytest.mark.rounding
@pytest.mark.parametrize("variant", VARIANTS[:2], ids=str)
def test_losses_by_hand(variant, batch):
    changed, model, params, slow = learning(**variant, kl_weight=0.3, policy_regularization=0.02, reward_scale=7.0)
    key_z, key_now, key_then = jax.random.split(jax.random.key(5), 3)
    belief = model.encoder.infer(params.encoder, batch.context, batch.present)
    std = np.exp(belief.log_std)
    z = np.asarray(belief.mean + std * jax.random.normal(key_z, (M, 3)))
    rows = lambda obs: jnp.concatenate([obs, np.repeat(z[:, None], S, axis=1)], axis=-1).reshape(M * S, 5)

    def acted(inputs, key):
        policy = model.policy(params.actor, inputs.reshape(M, S, 5))
        u = policy.mean + jnp.exp(policy.log_std) * jax.random.normal(key, (M, S, 2))
        log_prob = jnp.sum(
            -0.5 * ((u - policy.mean) / jnp.exp(policy.log_std)) ** 2 - policy.log_std - 0.5 * np.log(2 * np.pi),
            axis=-1,
        ) - jnp.sum(jnp.log(1 - jnp.tanh(u) ** 2), axis=-1)
        return jnp.tanh(u).reshape(M * S, 2), log_prob.reshape(M * S), policy

    now, then = rows(batch.obs), rows(batch.next_obs)
    action, log_prob, policy = acted(now, key_now)
    if variant:
        later, later_log_prob, _ = acted(then, key_then)
        following = model.critics(slow, then, later).min(axis=0) - later_log_prob
    else:
        following = model.value(slow, then)
    ends = np.asarray(batch.terminated).ravel()
    y = 7 * batch.reward.ravel() + 0.9 * np.where(ends, 0, following)
    q = model.critics(params.critics, now, batch.action.reshape(M * S, 2))
    judged = model.critics(params.critics, now, action).min(axis=0) - log_prob
    by_hand = {
        "critics": sum(np.mean((y - one) ** 2) for one in q),
        "actor": -np.mean(judged) + 0.02 * (np.mean(policy.mean**2) + np.mean(policy.log_std**2)),
        "value": np.mean((model.value(params.value, now) - judged) ** 2),
        "kl": 0.3 * 0.5 * np.sum(std**2 + belief.mean**2 - 1 - 2 * np.log(std)),  # over tasks and z
    }
    terms, metrics = losses(changed, model, params, slow, batch, jax.random.key(5))
    for name, term in terms.items():
        assert_close({name: term}, {name: by_hand[name]}, 1e-4)
    assert float(metrics["kl_of_task"]) == pytest.approx(float(by_hand["kl"]) / 0.3 / M, rel=1e-5)


@pytest.mark.parametrize("variant", VARIANTS[:2], ids=str)
def test_an_update_descends_the_sum_of_the_terms(variant, batch):
    """In float64: central differences of each term along the change that it makes; then the target network moves."""
    with jax.enable_x64(True):
        changed, model, params, slow = learning(**variant, kl_weight=0.3, policy_regularization=0.02, reward_scale=2.0)
        double = lambda tree: jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, tree)
        params, slow, batch = double((params, slow, batch))
        terms = jax.jit(lambda params: losses(changed, model, params, slow, batch, jax.random.key(5))[0])
        descent = optax.sgd(1.0)
        update = jax.jit(lambda w, l: pearl.update(changed, model, descent, w, l, batch, jax.random.key(5)))
        after, learner, _ = update(params, pearl.Learner(slow, descent.init(params)))
        change = jax.tree.map(jnp.subtract, after, params)
        moved = {"actor": "actor", "critics": "critics", "value": "value"}
        for term in moved.keys() & terms(params).keys():
            along = params._replace(**{name: jax.tree.map(jnp.zeros_like, x) for name, x in params._asdict().items()})
            along = along._replace(**{moved[term]: getattr(change, moved[term])})
            at = lambda h, along=along: terms(jax.tree.map(lambda x, d: x + h * d, params, along))[term]  # noqa: B023
            length = sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(along))
            assert length > 1e-4
            assert float(at(1e-6) - at(-1e-6)) / 2e-6 == pytest.approx(-length, rel=1e-4), term

        key_z = jax.random.split(jax.random.key(5), 3)[0]

        def encoder_loss(encoder):  # with the critics' targets held fixed
            belief = model.encoder.infer(encoder, batch.context, batch.present)
            z = model.encoder.sample(belief, key_z)
            q = model.critics(params.critics, pearl.with_latent(batch.obs, z), batch.action)
            divergence = jnp.sum(belief.kl(standard_normal(3)))
            return jnp.sum(jnp.mean((q - y) ** 2, axis=(1, 2))) + 0.3 * divergence

        z = model.encoder.sample(model.encoder.infer(params.encoder, batch.context, batch.present), key_z)
        then = pearl.with_latent(batch.next_obs, z)
        following = model.value(slow, then) if not variant else None
        if variant:
            action, log_prob = squashed_sample(
                model.policy(params.actor, then), jax.random.split(jax.random.key(5), 3)[2]
            )
            following = model.critics(slow, then, action).min(axis=0) - log_prob
        y = 2 * batch.reward + 0.9 * jnp.where(batch.terminated, 0, following)
        at = jax.jit(lambda h: encoder_loss(jax.tree.map(lambda x, d: x + h * d, params.encoder, change.encoder)))
        length = sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(change.encoder))
        assert float(at(1e-7) - at(-1e-7)) / 2e-7 == pytest.approx(-length, rel=1e-4)
        assert_close(change.belief, jax.tree.map(jnp.zeros_like, params.belief), 0)
        fast = after.critics if variant else after.value
        expected = jax.tree.map(lambda x, y: x + changed.target_rate * (y - x), slow, fast)
        assert_close(learner.target, expected, 1e-10)


def test_values_are_outputs_times_the_scale_of_rewards():
    critic, ours = MLP((4, 1)), pearl.model_of(config(reward_scale=30.0, hidden=(4,)), 1)
    inputs, action = jnp.ones((2, 4)), jnp.ones((2, 1))
    weights = critic.init(jax.random.key(0), inputs)
    assert_close(ours.value(weights, inputs), 30 * critic.apply(weights, inputs)[:, 0])
    both = ensemble_init(critic, jax.random.key(1), 2, jnp.ones(5))
    assert_close(ours.critics(both, inputs, action), 30 * ensemble(critic)(both, inputs, action))


# --- replay --------------------------------------------------------------------------------------------------------


def test_windows():
    begin, count = jnp.array([0, 7, 3]), jnp.array([4, 6, 0])  # of 10 slots: 0..3; 7, 8, 9, 0, 1, 2; none
    slots, present = sample_slots(jax.random.key(0), begin, count, 10, 400)
    assert present.tolist() == [400, 400, 0]
    assert [sorted(set(row)) for row in slots[:2].tolist()] == [[0, 1, 2, 3], [0, 1, 2, 7, 8, 9]]
    starts = set()
    for seed in range(40):
        slots, present = sample_slots(jax.random.key(seed), begin, count, 10, 5, consecutive=True)
        assert present.tolist() == [4, 5, 0]
        assert slots[0, :4].tolist() == [0, 1, 2, 3]
        starts.add(tuple(slots[1].tolist()))
    assert starts == {(7, 8, 9, 0, 1), (8, 9, 0, 1, 2)}


@pytest.mark.parametrize("context_source", ["recent", "all"])
def test_batches_of_training(context_source):
    """Contexts come from the recent window or from everything stored, the losses' steps from everything stored; both of
    the same tasks, each drawn once. Rings of 6 tasks with 10 slots, the oldest of which are empty or overwritten."""
    tasks, capacity = 6, 10
    number = 100.0 * jnp.arange(tasks)[:, None] + jnp.arange(capacity)
    flags = number % 2 == 0
    steps = Transition((), -number[..., None], 3 * number, flags, ~flags, (), flags, ())
    observations = jnp.stack([number, number + 0.5], axis=-1).reshape(
        tasks, -1, 1
    )  # those of a step one after the other
    table = jnp.zeros((tasks, capacity), jnp.int32)
    slot, size = jnp.array([8, 2, 5, 8, 3, 0]), jnp.array([8, 10, 5, 8, 10, 10])
    ring = Ring(steps, observations, 2 * jnp.arange(capacity) + table, table, table, table, slot, size, slot, slot)
    begin, recent = jnp.array([2, 8, 0, 7, 9, 4]), jnp.array([6, 4, 5, 1, 4, 6])

    class Shown:
        """An environment whose contexts show the number of the task as a reward."""

        def sparse_reward(self, next_obs, params):
            return params

    changed = config(meta_batch_size=4, context_size=300, batch_size=300, context_source=context_source)
    world = 1000.0 * jnp.arange(tasks)
    double, halve, as_it_is = lambda x: 2 * x, lambda x: x / 2, lambda x: x
    setup = pearl.Setup(changed, Shown(), 1, 1, 1, as_it_is, double, halve, model=None)
    draw = jax.jit(lambda key: pearl.sample_batch(setup, TaskReplay(ring, begin, recent), world, key))
    drawn, seen_tasks = [], set()
    for key in jax.random.split(jax.random.key(0), 6):
        batch = jax.tree.map(np.asarray, draw(key))
        chosen = (batch.obs[:, 0, 0] // 100).astype(int)
        assert len(set(chosen)) == 4
        seen_tasks |= set(chosen)
        np.testing.assert_array_equal(batch.present, 300)
        for m, b in enumerate(chosen):
            held = {100 * b + (int(slot[b]) - 1 - i) % capacity for i in range(int(size[b]))}
            window = {100 * b + (int(begin[b]) + i) % capacity for i in range(int(recent[b]))}
            assert set(batch.obs[m, :, 0]) == held
            np.testing.assert_array_equal(batch.action[m], -batch.obs[m] / 2)
            np.testing.assert_array_equal(batch.reward[m], 3 * batch.obs[m, :, 0])
            np.testing.assert_array_equal(batch.terminated[m], batch.obs[m, :, 0] % 2 == 0)
            np.testing.assert_array_equal(batch.next_obs[m], batch.obs[m] + 0.5)
            assert set(batch.context[m, :, 0]) == (window if context_source == "recent" else held)
            np.testing.assert_array_equal(batch.context[m, :, 1], -batch.context[m, :, 0] / 2)
            np.testing.assert_array_equal(batch.context[m, :, 2], 1000 * b)
        drawn.append(batch.obs)
    assert len(seen_tasks) == tasks
    assert len(np.unique([batch.ravel() for batch in drawn], axis=0)) == 6


@pytest.fixture(scope="module")
def sparse():
    return jaxrl_envs.make("sparse-point-robot")


@pytest.fixture(scope="module")
def tiny(sparse):
    algorithm = pearl.make(TINY, *sparse)
    begun = quick_jit(algorithm.init)(jax.random.key(0))
    step = quick_jit(algorithm.step)
    states = [begun]
    for _ in range(4):
        states.append(step(states[-1])[0])
    return algorithm, states


def test_contexts_show_the_last_visit_alone_and_the_memory_everything(tiny):
    _, states = tiny
    assert states[0].memory.recent.tolist() == [20] * 4  # the initial steps
    assert states[0].memory.begin.tolist() == [0] * 4
    visited_ever = np.zeros(4, bool)
    for before, after in pairwise(states):
        old, new = before.memory, after.memory
        visited = np.asarray(new.ring.slot != old.ring.slot)
        assert visited.sum() == 2
        np.testing.assert_array_equal(new.begin, np.where(visited, old.ring.slot, old.begin))
        np.testing.assert_array_equal(new.recent, np.where(visited, 60, old.recent))  # prior and posterior, not extra
        np.testing.assert_array_equal(new.ring.slot, (old.ring.slot + 80 * visited) % 200)
        np.testing.assert_array_equal(new.ring.size, np.minimum(old.ring.size + 80 * visited, 200))
        visited_ever |= visited
        fresh = np.abs(stored(new.ring).obs - stored(old.ring).obs).max(axis=-1) > 0
        assert fresh[visited].any(axis=1).all()
        assert not fresh[~visited].any()
    assert visited_ever.sum() > 2


def test_a_memory_holds_the_steps_of_its_own_task_with_the_reward_of_training(tiny, sparse):
    _, states = tiny
    state = states[-1]
    assert_close(state.world.goal, half_circle_goals()[:4])
    steps, held = stored(state.memory.ring), np.arange(200) < np.asarray(state.memory.ring.size)[:, None]
    distance = np.linalg.norm(steps.next_obs - np.asarray(state.world.goal)[:, None], axis=-1)
    assert_close(steps.reward[held], -distance[held])


def with_encoder(infer, settings, env, tasks):
    """A setup whose encoder has no parameters and infers beliefs by `infer(context, count)`."""
    setup = pearl.setup_of(settings, env, tasks)
    sample = lambda belief, key: belief.sample(key)
    encoder = Encoder(lambda key, features: (), lambda params, *context: infer(*context), sample)
    return setup._replace(model=setup.model._replace(encoder=encoder))


def test_contexts_and_results_show_the_sparse_reward(sparse):
    """With an encoder whose belief has the mean reward of its context as its mean."""

    def mean_reward(context, count):
        present = jnp.arange(context.shape[1]) < count[:, None]
        mean = jnp.sum(context[..., -1] * present, axis=1) / jnp.maximum(count, 1)
        return DiagonalGaussian(jnp.broadcast_to(mean[:, None], (len(mean), 3)), jnp.zeros((len(mean), 3)))

    class Wide(SparsePointRobot):
        """With a reward everywhere, which contexts also show."""

        def sparse_reward(self, next_obs, params):
            return 2.0 - jnp.linalg.norm(next_obs - params.goal)

    env, tasks = Wide(), sparse[1]
    setup = with_encoder(mean_reward, config(eval_exploration_episodes=2), env, tasks)
    state = quick_jit(partial(pearl.init, setup, optax.adam(1e-3), tasks))(jax.random.key(0))
    seen = quick_jit(partial(pearl.evaluate, setup, tasks))(state, jax.random.key(1))
    returns, believed = np.asarray(seen["return"].values), np.asarray(seen["belief_mean"].values)[..., 0]
    distance = np.linalg.norm(
        seen["path"].values[:, :, 1:] - np.asarray(tasks.test_batch(5, None).goal)[:, None, None], axis=-1
    )
    assert (np.abs(returns - (2 - distance).sum(axis=2)) < 2.0).all()  # the path lacks the last observation
    np.testing.assert_array_equal(believed[:, :2], 0)  # nothing is inferred while it explores
    begun = np.asarray(seen["path"].values)[:, :2, 1].reshape(10, -1)  # after one step, by z's from the prior
    assert len(np.unique(begun, axis=0)) == 10  # of each task and each episode
    for k in (2, 3):
        assert_close(believed[:, k], returns[:, :k].sum(axis=1) / (20 * k))


def test_beliefs_grow_with_a_visit_and_only_after_its_first_episodes(sparse):
    """Two episodes with z from the prior, two with z from what this visit has seen, two more that no context shows.

    The agent's action is tanh z₀, and the encoder infers z₀ = 1 + the mean z₀ of its context."""

    def one_more(context, count):
        present = (jnp.arange(context.shape[1]) < count[:, None])[..., None]
        z = jnp.arctanh(jnp.clip(context[..., 2:3], -0.999999, 0.999999))  # of a context (o, o, a, a, r)
        mean = 1 + jnp.sum(z * present, axis=1) / jnp.maximum(count, 1)[:, None]
        known = (count > 0)[:, None]
        belief = jnp.where(known, mean, 0.0), jnp.where(known, -20.0, 0.0)
        return DiagonalGaussian(*(jnp.broadcast_to(x, (len(count), 3)) for x in belief))

    changed = config(
        tasks_per_iteration=3,
        prior_steps=40,
        posterior_steps=40,
        extra_posterior_steps=40,
        context_size=2000,
        capacity=4 * 2000,
    )
    setup, optimizer = with_encoder(one_more, changed, *sparse), optax.adam(1e-3)
    state = jax.jit(partial(pearl.init, setup, optimizer, sparse[1]))(jax.random.key(0))
    first, second = state.params.actor["params"]["Dense_0"], state.params.actor["params"]["Dense_1"]
    pick = jnp.zeros((5, 8)).at[2, 0].set(1.0).at[2, 1].set(-1.0)  # ± z₀
    first |= {"kernel": pick, "bias": jnp.zeros(8)}
    second |= {
        "kernel": jnp.zeros((8, 4)).at[0, 0].set(1.0).at[1, 0].set(-1.0),
        "bias": jnp.array([0.0, 0.0, -50.0, -50.0]),  # the smallest standard deviation possible
    }
    actor = {"params": {"Dense_0": first, "Dense_1": second}}
    state = state.replace(params=state.params._replace(actor=actor))
    step = jax.jit(partial(pearl.step, setup, optimizer))
    firsts = []
    for _ in range(2):
        begun = np.asarray(state.memory.ring.slot)
        state, metrics = step(state.replace(params=state.params._replace(actor=actor)))
        ring = state.memory.ring
        visited = np.flatnonzero(np.asarray(ring.slot) != begun)
        assert len(visited) == 3
        slots = begun[visited, None] + np.arange(120)
        flat = Places(jnp.repeat(visited, 120), jnp.asarray(slots).ravel())
        steps = jax.tree.map(lambda x: np.asarray(x).reshape(3, 120, *x.shape[1:]), read(ring, flat))
        unit = np.clip(steps.action[..., 0] / sparse[0].action_space(None).high, -0.999999, 0.999999)
        z = np.arctanh(unit).reshape(3, 6, 20)
        assert (z.std(axis=2) < 0.1).all()  # one z for an episode
        z = z.mean(axis=2)
        for e, shown in ((2, 2), (3, 3), (4, 4), (5, 4)):
            np.testing.assert_allclose(z[:, e], 1 + z[:, :shown].mean(axis=1), atol=0.1)
        assert (np.abs(z[:, 1] - z[:, 0] - 1) > 0.1).any()
        firsts.extend(z[:, :2].ravel())
        assert (np.abs(z[:, 0]) < 4).all()  # from the prior, whatever was seen before the visit
        returns = steps.reward.reshape(3, 6, 20).sum(axis=2)
        assert float(metrics["return"]) == pytest.approx(returns[:, 2:].mean(), rel=1e-4)
        paid = np.asarray(
            jax.vmap(jax.vmap(sparse[0].sparse_reward, (0, None)))(
                steps.next_obs,
                jax.tree.map(lambda x: x[visited], state.world),  # noqa: B023
            )
        )
        assert float(metrics["sparse_return"]) == pytest.approx(
            paid.reshape(3, 6, 20).sum(axis=2)[:, 2:].mean(), abs=1e-3
        )
    assert len(np.unique(np.round(firsts, 3))) == 12  # each task, episode and visit draws its own


def test_an_agent_acts_by_its_belief(tiny):
    algorithm, states = tiny
    params = states[0].params
    sure = params._replace(belief=DiagonalGaussian(jnp.arange(3.0), jnp.full(3, -20.0)))
    assert_close(algorithm.agent.start(sure, jax.random.key(0)), np.arange(3.0))
    drawn = jax.vmap(lambda key: algorithm.agent.start(params, key))(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.06)  # the prior
    np.testing.assert_allclose(drawn.std(axis=0), 1, atol=0.05)


def test_nobody_exceeds_the_optimum(tiny):
    algorithm, states = tiny
    returns = quick_jit(algorithm.evaluate)(states[-1], jax.random.key(0))["return"].values
    assert returns.shape == (5, 4)
    assert (returns <= best_return(half_circle_goals()[80:85], sparse=True)[:, None] + 1e-4).all()


# --- adaptation ----------------------------------------------------------------------------------------------------


def test_context_tells_the_task_and_that_of_another_task_misleads():
    """Two goals on opposite sides; the reward at the start reveals which one it is."""

    class Dense(SparsePointRobot):
        """Whose contexts show the distance."""

        def sparse_reward(self, next_obs, params):
            return -jnp.linalg.norm(next_obs - params.goal)

    env, goals = Dense(), np.array([(1.0, 0.0), (-1.0, 0.0)])
    tasks = point_robot_tasks(np.tile(goals, (50, 1)))
    settings = {
        "train_tasks": 20,
        "meta_batch_size": 8,
        "tasks_per_iteration": 10,
        "updates": 200,
        "batch_size": 32,
        "context_size": 16,
        "extra_posterior_steps": 0,
    }
    sizes = {"hidden": (32, 32), "encoder_hidden": (32,), "capacity": 20 * 400, "eval_tasks": 2}
    rates = {"learning_rate": 2e-3, "target_rate": 0.01}
    algorithm = pearl.make(config(**settings, **sizes, **rates), env, tasks)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    step = optimised_jit(algorithm.step)
    for _ in range(40):
        state, _ = step(state)
    seen = jax.jit(algorithm.evaluate)(state, jax.random.key(1))

    @jax.jit
    def returns(mean, std):
        def one(mean, std, goal):
            params = state.params._replace(belief=DiagonalGaussian(mean, jnp.log(std)))
            task = env.default_params.replace(goal=goal)
            told = play_episodes(
                env, algorithm.agent, task, params, jax.random.key(2), episodes=20, horizon=20, greedy=True
            )
            return jnp.mean(jnp.sum(told.reward, axis=0))

        return jax.vmap(one)(mean, std, jnp.asarray(goals, jnp.float32))

    mean, std = (seen[name].values[:, -1] for name in ("belief_mean", "belief_std"))
    right, wrong = returns(mean, std), returns(mean[::-1], std[::-1])
    best = best_return(goals, sparse=False)
    assert (right <= best + 1e-3).all()
    assert (right > best - 8).all(), (right, best)
    assert (wrong < right - 10).all(), (right, wrong)


# --- what a user can get wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"meta_batch_size": 5}, r"meta_batch_size must be at most the number of training tasks \(4\), got 5"),
        ({"tasks_per_iteration": 5}, r"tasks_per_iteration must be at most the number of training tasks \(4\), got 5"),
        ({"train_tasks": 81}, "train_tasks must be at most 80, as many as there are to train on, got 81"),
        ({"context_size": 201}, "capacity leaves 200 steps to each of 4 tasks, .* has 201; use at least 804"),
        ({"initial_steps": 220}, "capacity leaves 200 steps to each of 4 tasks, .* has 220; use at least 880"),
        ({"capacity": 801}, r"capacity must be a multiple of the number of training tasks \(4\), got 801"),
        ({"prior_steps": 30}, "prior_steps must be whole episodes of 20 steps, got 30"),
        ({"posterior_steps": 0, "extra_posterior_steps": 0}, "no episode would use the belief"),
        ({"posterior_steps": 0, "prior_steps": 0}, "contexts would be empty"),
        ({"initial_steps": 0}, "initial_steps must be positive"),
        ({"context_source": "old"}, "context_source must be one of recent, all, got 'old'"),
        ({"critic_target": "q"}, "critic_target must be one of value, critics"),
        ({"encoder_hidden": ()}, "encoder_hidden needs layers of positive sizes"),
        ({"hidden": (8, 0)}, "hidden needs layers of positive sizes"),
        ({"discount": 1.5}, r"discount must lie in \[0, 1\]"),
        ({"eval_tasks": 21}, "21 test tasks were asked for and the task distribution holds 20"),
    ],
)
def test_bad_settings(settings, message, sparse):
    with pytest.raises(UsageError, match=message):
        pearl.make(config(**settings), *sparse)


def test_other_actions():
    env, _ = jaxrl_envs.make("CartPole-v1")
    with pytest.raises(UsageError, match="PEARL needs a flat vector of continuous actions; CartPole-v1 has Discrete"):
        pearl.make(
            config(initial_steps=500, prior_steps=500, posterior_steps=500, extra_posterior_steps=0, capacity=4 * 1500),
            env,
            single(env.default_params),
        )


@pytest.mark.parametrize(
    "variant", [PUBLISHED, {"recurrent_encoder": True, "encoder_hidden": (8, 8)}, {"context_source": "all"}], ids=len
)
def test_presets_and_ablations_keep_their_types(variant, sparse):
    changed = Config(**PUBLISHED) if variant is PUBLISHED else config(**variant)
    algorithm = pearl.make(changed, *sparse)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    after, metrics = jax.eval_shape(algorithm.step, state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert {"return", "sparse_return", "critic_loss", "kl_of_task"} <= metrics.keys()
