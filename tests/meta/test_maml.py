"""MAML's meta-gradient against closed forms, finite differences and explicit Hessians."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from close import assert_close
from compiling import quick_jit
from jax.flatten_util import ravel_pytree

import jaxrl_hier
from jaxrl_hier.meta.estimators import PolicyBatch, inner_loss, naive
from jaxrl_hier.meta.inner import adapt, adaptation_path, gradient_step, head_rates
from jaxrl_hier.meta.maml import Config, make, published
from jaxrl_hier.meta.outer import mean_kl, surrogate_loss
from jaxrl_hier.networks import CategoricalPolicy, GaussianPolicy
from jaxrl_hier.trust_region import trust_region_step

TASKS, STEPS, N = 3, 2, 12


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


# --- closed forms ------------------------------------------------------------------------------------------------


def test_meta_gradient_on_a_quadratic(float64):
    """L(θ; c) = ½ (θ − c)ᵀ H (θ − c): after K steps dL(θ')/dθ = (I − αH)^K ∇L(θ')."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 4))
    hessian, alpha = jnp.array(a @ a.T / 4), 0.1
    inner, outer, theta = (
        jnp.array(rng.normal(size=(3, 4))),
        jnp.array(rng.normal(size=4)),
        jnp.array(rng.normal(size=4)),
    )
    loss = lambda theta, c: 0.5 * (theta - c) @ hessian @ (theta - c)
    meta = lambda theta, **kw: loss(adapt(loss, theta, inner, alpha, **kw), outer)

    adapted = theta
    for c in inner:
        adapted = adapted - alpha * hessian @ (adapted - c)
    assert_close(adapt(loss, theta, inner, alpha), adapted, 1e-12)
    outer_gradient = hessian @ (adapted - outer)
    contraction = np.linalg.matrix_power(np.eye(4) - alpha * np.asarray(hessian), 3)
    assert_close(jax.grad(meta)(theta), contraction @ outer_gradient, 1e-10)
    assert_close(jax.grad(partial(meta, first_order=True))(theta), outer_gradient, 1e-10)
    assert_close(jax.grad(partial(meta, remat=True))(theta), contraction @ outer_gradient, 1e-10)


def test_first_order_is_exact_where_the_hessian_is_zero(float64):
    loss = lambda theta, c: jnp.sum(c * theta)  # linear
    inner, theta = jnp.arange(6.0).reshape(2, 3), jnp.ones(3)
    outer = lambda theta, **kw: jnp.sum(adapt(loss, theta, inner, 0.3, **kw) ** 2)
    assert_close(jax.grad(outer)(theta), jax.grad(partial(outer, first_order=True))(theta), 1e-12)


def test_rates_are_a_number_a_tree_or_none(float64):
    loss = lambda p, c: 0.5 * c * jnp.sum(p["body"] ** 2) + 0.5 * jnp.sum(p["head"]["w"] ** 2) * jnp.sum(p["body"])
    params = {"body": jnp.array([1.0, 2.0]), "head": {"w": jnp.array([3.0])}}
    gradient = jax.grad(loss)(params, 2.0)
    step = lambda lr: gradient_step(loss, params, 2.0, lr)
    assert_equal = lambda tree, body, head: (
        assert_close(tree["body"], params["body"] - body * gradient["body"], 1e-12),
        assert_close(tree["head"]["w"], params["head"]["w"] - head * gradient["head"]["w"], 1e-12),
    )
    assert_equal(step(0.1), 0.1, 0.1)
    assert_equal(step({"body": 0.1, "head": 0.2}), 0.1, 0.2)
    assert_equal(step({"body": jnp.array([0.1, 0.3]), "head": {"w": 0.2}}), jnp.array([0.1, 0.3]), 0.2)
    frozen = step({"body": None, "head": 0.2})
    assert_equal(frozen, 0.0, 0.2)
    # what does not adapt still learns: its meta-gradient runs through the head's step
    meta = lambda body: jnp.sum(step({"body": None, "head": 0.2})["head"]["w"] * body)
    rates = lambda params: gradient_step(loss, params, 2.0, {"body": None, "head": 0.2})["head"]["w"][0]
    assert float(jnp.abs(jax.grad(rates)(params)["body"]).min()) > 0.1
    assert jax.grad(meta)(params["body"]).shape == (2,)


def test_the_path_is_where_each_step_began(float64):
    loss = lambda theta, c: 0.5 * jnp.sum((theta - c) ** 2)
    theta, path = adaptation_path(loss, jnp.zeros(1), jnp.array([[1.0], [1.0]]), 0.5)
    assert_close(path, [[0.0], [0.5]])
    assert_close(theta, [0.75])


def test_the_head_is_the_last_layer_and_the_standard_deviation():
    params = GaussianPolicy(2, (5, 5), "tanh").init(jax.random.key(0), jnp.zeros(2))
    rates = jax.tree_util.tree_leaves_with_path(head_rates(params, 0.3, 2))
    names = {"/".join(key.key for key in path) for path, _ in rates}
    assert names == {"params/MLP_0/Dense_2/kernel", "params/MLP_0/Dense_2/bias", "params/log_std"}


# --- the policy's losses -----------------------------------------------------------------------------------------


def random_batch(rng, *leading, discrete):
    weight = (rng.random((*leading, N)) < 0.8) + 1e-9
    action = rng.integers(0, 3, (*leading, N)) if discrete else rng.normal(size=(*leading, N, 2))
    zeros = jnp.zeros((*leading, N))
    return PolicyBatch(
        acted=(),
        log_prob=zeros,
        reward=zeros,
        discount=zeros,
        obs=jnp.array(rng.normal(size=(*leading, N, 2))),
        action=jnp.array(action),
        advantage=jnp.array(rng.normal(size=(*leading, N))),
        weight=jnp.array(weight / weight.sum(-1, keepdims=True)),
        episode_return=jnp.zeros(leading),
        completed_return=jnp.zeros(leading),
        complete=jnp.ones(leading),
        path=jnp.zeros((*leading, 1)),
    )


def rl_problem(discrete):
    """A small policy with smooth activations, and stored batches of 3 tasks."""
    rng = np.random.default_rng(3)
    policy = CategoricalPolicy(3, (5,), "tanh") if discrete else GaussianPolicy(2, (5,), "tanh")
    inner = random_batch(rng, TASKS, STEPS, discrete=discrete)
    outer = random_batch(rng, TASKS, discrete=discrete)
    params = policy.init(jax.random.key(0), jnp.zeros(2, jnp.float64))
    theta, unravel = ravel_pytree(jax.tree.map(lambda x: x.astype(jnp.float64), params))
    loss = partial(inner_loss, policy, naive)

    def predict(theta, **kw):
        one = lambda i, o: policy.apply(adapt(loss, unravel(theta), i, 0.4, **kw), o.obs)
        return jax.vmap(one)(inner, outer)

    def meta_loss(theta, old, **kw):
        return jnp.mean(jax.vmap(surrogate_loss)(old, predict(theta, **kw), outer))

    return theta, predict, meta_loss, outer


@pytest.mark.parametrize("discrete", [False, True])
def test_meta_gradient_against_finite_differences(float64, discrete):
    theta, predict, meta_loss, _ = rl_problem(discrete)
    old = predict(theta)
    gradient = jax.jit(jax.grad(meta_loss))(theta, old)
    value, h = jax.jit(meta_loss), 1e-6
    numeric = [(value(theta + e, old) - value(theta - e, old)) / (2 * h) for e in h * jnp.eye(len(theta))]
    assert_close(gradient, numeric, 1e-7)
    first_order = jax.grad(partial(meta_loss, first_order=True))(theta, old)
    assert float(jnp.abs(first_order - gradient).max()) > 1e-3  # the Hessian is not zero here
    assert_close(jax.grad(partial(meta_loss, remat=True))(theta, old), gradient, 1e-12)


def test_fisher_product_is_the_hessian_of_the_kl_through_the_adaptation(float64):
    theta, predict, meta_loss, outer = rl_problem(discrete=False)
    old = predict(theta)
    kl = lambda old, new: jnp.mean(jax.vmap(mean_kl)(old, new, outer))
    loss = lambda old, new: jnp.mean(jax.vmap(surrogate_loss)(old, new, outer))
    damping, delta = 1e-3, 1e-6
    fisher = jax.hessian(lambda t: kl(old, predict(t)))(theta) + damping * jnp.eye(len(theta))
    gradient = jax.grad(meta_loss)(theta, old)
    direction = jnp.linalg.solve(fisher, gradient)
    expected = theta - jnp.sqrt(2 * delta / (gradient @ direction)) * direction
    # a bound so small that the quadratic model is exact, and enough iterations for an exact solve
    new, info = trust_region_step(
        theta, predict, loss, kl, max_divergence=delta, cg_iterations=4 * len(theta), damping=damping
    )
    assert bool(info.accepted)
    # backtracking may shorten the step, but not turn it
    taken, wanted = new - theta, (expected - theta) * 0.8 ** float(info.backtracks)
    assert_close(taken, wanted, 1e-3)


# --- the algorithm -----------------------------------------------------------------------------------------------


def test_trpo_improves_within_its_bound(tiny_maml):
    state, metrics = quick_jit(tiny_maml.step)(quick_jit(tiny_maml.init)(jax.random.key(0)))
    assert int(state.iteration) == 1
    assert bool(metrics["accepted"])
    assert float(metrics["improvement"]) > 0
    assert 0 < float(metrics["kl"]) <= 0.01
    assert all(v.shape == () for v in metrics.values())


def test_evaluation_has_named_axes_and_starts_at_the_origin(tiny_maml):
    measured = quick_jit(tiny_maml.evaluate)(tiny_maml.init(jax.random.key(0)), jax.random.key(1))
    assert measured["return"].axes == ("task", "adaptation_step")
    assert measured["return"].values.shape == (4, 3)
    assert measured["path"].axes == ("task", "adaptation_step", "time", "observation")
    assert measured["path"].values.shape == (4, 3, 21, 2)
    np.testing.assert_array_equal(measured["path"].values[:, :, 0], 0.0)


@pytest.mark.parametrize("settings", [{"outer": "adam"}, {"inner_steps": 0}, {"inner_steps": 2, "remat": True}])
def test_variants_run(settings):
    sizes = {"meta_batch": 2, "episodes": 2, "horizon": 8, "hidden": (8,)}
    algorithm = jaxrl_hier.make("maml", **sizes, **settings)
    _, metrics = quick_jit(algorithm.step)(quick_jit(algorithm.init)(jax.random.key(0)))
    assert ("return_before" in metrics) == (settings.get("inner_steps", 1) > 0)
    assert all(bool(jnp.isfinite(v)) for v in metrics.values())
    assert algorithm.env_steps == 2 * 2 * 8 * (settings.get("inner_steps", 1) + 1)


@pytest.mark.parametrize("outer", ["trpo", "adam"])
def test_chunks_of_tasks_change_nothing(navigation, outer):
    sizes = {"meta_batch": 6, "episodes": 2, "horizon": 10, "hidden": (8,), "cg_iterations": 3, "outer": outer}
    after = {}
    for chunk in (6, 1, 4):  # 4 does not divide 6
        algorithm = make(Config(**sizes, task_chunk=chunk), *navigation)
        after[chunk] = quick_jit(algorithm.step)(quick_jit(algorithm.init)(jax.random.key(0)))[0].params
    for chunk in (1, 4):
        assert_close(after[chunk], after[6], 1e-4)


def test_discrete_actions_and_gymnax_environments():
    algorithm = jaxrl_hier.make("maml", env="CartPole-v1", meta_batch=2, episodes=2, horizon=16, hidden=(8,))
    _, metrics = quick_jit(algorithm.step)(quick_jit(algorithm.init)(jax.random.key(0)))
    assert 8 <= float(metrics["return"]) <= 16


@pytest.mark.parametrize("outer", [pytest.param("trpo", marks=pytest.mark.rounding), "sgd"])
def test_numbers_that_are_only_multiplied_can_be_swept_by_vmap(navigation, outer):
    env, tasks = navigation
    sizes = {"meta_batch": 2, "episodes": 2, "horizon": 8, "hidden": (8,), "cg_iterations": 3, "outer": outer}
    state = make(Config(**sizes), env, tasks).init(jax.random.key(0))

    def one(inner_lr, max_kl):
        return make(Config(**sizes, inner_lr=inner_lr, max_kl=max_kl), env, tasks).step(state)[0].params

    swept = jax.jit(jax.vmap(one))(jnp.array([0.1, 0.5]), jnp.array([0.01, 0.002]))
    for i, (inner_lr, max_kl) in enumerate([(0.1, 0.01), (0.5, 0.002)]):
        single = jax.jit(one)(inner_lr, max_kl)
        assert_close(jax.tree.map(lambda x, i=i: x[i], swept), single)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"meta_batch": 0}, "meta_batch must be positive, got 0"),
        ({"episodes": -1}, "episodes must be positive"),
        ({"inner_steps": -1}, "inner_steps must be at least 0"),
        ({"discount": 1.5}, r"discount must lie in \[0, 1\], got 1.5"),
        ({"outer": "lbfgs"}, "outer must be one of trpo, ppo, adam, sgd, got 'lbfgs'"),
        ({"estimator": "dicee"}, "estimator must be one of naive, lvc, dice, loaded-dice, got 'dicee'"),
        ({"estimator": "dice", "gae_lambda": 0.9}, "dice needs gae_lambda = 1, got 0.9"),
        ({"exploration": True, "inner_steps": 0}, "inner_steps must be positive"),
        ({"reptile": True}, "outer must be adam or sgd"),
        ({"reptile": True, "outer": "sgd", "head_only": True}, "the other layers would never learn"),
        ({"microbatch": 5}, "microbatch needs outer adam or sgd; trpo uses trajectories more than once"),
        (
            {"microbatch": 3, "meta_batch": 20, "outer": "adam"},
            r"meta_batch must be a multiple of microbatch \(3\), got 20",
        ),
        ({"activation": "gelu"}, "activation must be one of relu"),
        ({"hidden": (4, 0)}, "hidden layers must have positive sizes"),
        ({"eval_tasks": 41}, "41 test tasks were asked for and the task distribution holds 40"),
        ({"inner_rl": 1}, "unknown setting of maml 'inner_rl'; nearest: inner_lr"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(jaxrl_hier.UsageError, match=message):
        jaxrl_hier.make("maml", **settings)


def test_published_values_belong_to_their_setting():
    assert published(Config(), "navigation2d").text(2) == "-3.33 ± 0.55"
    assert published(Config(inner_steps=0), "navigation2d").text(1) == "-19.73"
    assert published(Config(), "CartPole-v1") is None
    for switch in ({"first_order": True}, {"reptile": True}, {"head_only": True}, {"outer": "adam"}):
        assert published(Config(**switch), "navigation2d") is None
