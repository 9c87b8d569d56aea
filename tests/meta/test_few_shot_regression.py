"""Few-shot regression against explicit Hessians, finite differences, NumPy, and the Taylor series of Reptile."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.sinusoid import Sinusoid, SinusoidParams
from jaxrl_envs.tasks import single
from jaxrl_hier.engine.loops import MetaBatch
from jaxrl_hier.meta.few_shot_regression import (
    REPTILE,
    Config,
    Learned,
    Points,
    adapted_predictions,
    adapted_weights,
    make,
    meta_loss,
    network_of,
    squared_error,
    task_data,
)
from tests.close import assert_close
from tests.compiling import optimised_jit, quick_jit

SMALL = Config(
    meta_batch_size=3, shots=4, outer_points=5, inner_learning_rate=0.05, hidden=(5, 4), activation="tanh", eval_tasks=8
)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def problem(config, tasks=2, steps=1):
    """Random weights, rates and data, in the precision that JAX is set to."""
    rng = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda w: jnp.array(rng.normal(size=w.shape) * 0.7), network_of(config).init(jax.random.key(0), jnp.zeros(1))
    )
    rates = jax.tree.map(lambda w: jnp.array(rng.uniform(0.01, 0.1, w.shape)), weights)
    points = lambda *leading: Points(*(jnp.array(rng.normal(size=(*leading, 1)) * scale) for scale in (2, 3)))
    learned = Learned(weights, rates if config.method == "meta-sgd" else ())
    return learned, MetaBatch(points(tasks, steps, config.shots), points(tasks, config.outer_points))


# --- meta-gradients ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["maml", "anil", "meta-sgd", "pretrained"])
def test_meta_gradient_against_finite_differences(float64, method):
    config = replace(SMALL, method=method)
    learned, data = problem(config, steps=2)
    flat, unravel = ravel_pytree(learned)
    value = jax.jit(lambda flat: meta_loss(config, unravel(flat), data))
    gradient, h = jax.grad(value)(flat), 1e-6
    numeric = [(value(flat + e) - value(flat - e)) / (2 * h) for e in h * jnp.eye(len(flat))[::3]]
    assert_close(gradient[::3], numeric, 1e-7)


def one_task(data):
    """Inner and outer batch of the first task."""
    return jax.tree.map(lambda x: x[0, 0], data.inner), jax.tree.map(lambda x: x[0], data.outer)


def test_fomaml_is_maml_without_the_hessian_term(float64):
    learned, data = problem(SMALL, tasks=1)
    theta, unravel = ravel_pytree(learned.weights)
    loss = lambda theta, points: squared_error(SMALL, unravel(theta), points)

    @jax.jit
    def expected(theta):
        inner, outer = one_task(data)
        last = jax.grad(loss)(theta - SMALL.inner_learning_rate * jax.grad(loss)(theta, inner), outer)
        return last, last - SMALL.inner_learning_rate * jax.hessian(loss)(theta, inner) @ last

    @jax.jit
    def gradients(theta):
        of = lambda method: lambda theta: meta_loss(replace(SMALL, method=method), Learned(unravel(theta), ()), data)
        return jax.grad(of("fomaml"))(theta), jax.grad(of("maml"))(theta)

    for ours, wanted in zip(gradients(theta), expected(theta)):
        assert_close(ours, wanted, 1e-9)
    assert float(jnp.abs(jnp.subtract(*gradients(theta))).max()) > 1e-3


def test_meta_sgd_learns_each_rate(float64):
    """dL(θ − α∘g)/dα = −g ∘ ∇L(θ'), and with equal rates the rest is MAML's."""
    config = replace(SMALL, method="meta-sgd")
    learned, data = problem(SMALL, tasks=1)
    rates = jax.tree.map(lambda w: jnp.full_like(w, SMALL.inner_learning_rate), learned.weights)
    gradient = jax.jit(jax.grad(partial(meta_loss, config)))(Learned(learned.weights, rates), data)

    @jax.jit
    def expected(learned):
        inner, outer = one_task(data)
        first = jax.grad(partial(squared_error, SMALL))(learned.weights, inner)
        after = adapted_weights(SMALL, learned, jax.tree.map(lambda x: x[None], inner))
        last = jax.grad(partial(squared_error, SMALL))(after, outer)
        return jax.grad(partial(meta_loss, SMALL))(learned, data).weights, jax.tree.map(
            lambda g, h: -g * h, first, last
        )

    assert_close(tuple(gradient), expected(learned), 1e-9)


def test_anil_adapts_the_head_and_learns_the_body():
    config = replace(SMALL, method="anil")
    learned, data = problem(config, steps=1)
    batches = jax.tree.map(lambda x: x[0], data.inner)
    before, (after, maml) = (
        learned.weights["params"],
        jax.jit(
            lambda: [
                adapted_weights(replace(SMALL, method=method), learned, batches)["params"]
                for method in ("anil", "maml")
            ]
        )(),
    )
    gradient = jax.jit(jax.grad(partial(meta_loss, config)))(learned, data)
    for k in ("kernel", "bias"):
        assert all(np.array_equal(after[layer][k], before[layer][k]) for layer in ("Dense_0", "Dense_1"))
        assert np.all(after["Dense_2"][k] != before["Dense_2"][k])
        assert_close(after["Dense_2"][k], maml["Dense_2"][k])  # in the first step
    assert all(float(jnp.abs(g).max()) > 1e-3 for g in jax.tree.leaves(gradient))


def test_taylor_series_in_reptiles_paper(float64):
    """To first order in α, averaged over the order of two batches: MAML's gradient is AvgGrad − 2α AvgGradInner,
    FOMAML's AvgGrad − α AvgGradInner, and Reptile's step (θ − θ')/α is 2 AvgGrad − α AvgGradInner."""
    learned, data = problem(SMALL, tasks=1, steps=2)
    theta, unravel = ravel_pytree(learned.weights)
    loss = lambda theta, points: squared_error(SMALL, unravel(theta), points)
    alpha = 1e-5

    def estimate(method, first, last):
        config = replace(SMALL, method=method, inner_learning_rate=alpha)
        if method == "reptile":
            batches = jax.tree.map(lambda a, b: jnp.stack([a, b]), first, last)
            return (theta - ravel_pytree(adapted_weights(config, learned, batches))[0]) / alpha
        batch = MetaBatch(jax.tree.map(lambda x: x[None, None], first), jax.tree.map(lambda x: x[None], last))
        return ravel_pytree(jax.grad(partial(meta_loss, config))(learned, batch).weights)[0]

    @jax.jit
    def compare(theta):
        one, two = (jax.tree.map(lambda x, i=i: x[0, i], data.inner) for i in (0, 1))
        g, h = jax.grad(loss)(theta, one), jax.grad(loss)(theta, two)
        average = (g + h) / 2
        inner = (jax.hessian(loss)(theta, two) @ g + jax.hessian(loss)(theta, one) @ h) / 2
        mean = {m: (estimate(m, one, two) + estimate(m, two, one)) / 2 for m in ("maml", "fomaml", "reptile")}
        return average, inner, mean

    average, inner, mean = compare(theta)
    for method, gradients, inners in (("maml", 1, 2), ("fomaml", 1, 1), ("reptile", 2, 1)):
        remainder = (gradients * average - mean[method]) / alpha
        assert_close(remainder, inners * inner, 0.01)


# --- Reptile -------------------------------------------------------------------------------------------------------


def numpy_sgd(weights, batches, lr):
    """Gradient steps on a tanh MLP, written out."""
    layers = [[np.array(layer["kernel"]), np.array(layer["bias"])] for layer in weights["params"].values()]
    for x, y in zip(np.asarray(batches.x), np.asarray(batches.y)):
        inputs = [x]
        for kernel, bias in layers[:-1]:
            inputs.append(np.tanh(inputs[-1] @ kernel + bias))
        error = 2 * (inputs[-1] @ layers[-1][0] + layers[-1][1] - y) / len(x)
        for i in reversed(range(len(layers))):
            step = inputs[i].T @ error, error.sum(axis=0)
            error = error @ layers[i][0].T * (1 - inputs[i] ** 2)
            layers[i] = [layers[i][0] - lr * step[0], layers[i][1] - lr * step[1]]
    return layers


class Repeated(Sinusoid):
    """Sinusoids whose data sets always have the same x."""

    def points(self, key, params, count):
        x = jnp.linspace(-4, 5, count)[:, None]
        return x, self.target(x, params)


@pytest.mark.rounding
def test_reptile_step_against_numpy():
    wave = SinusoidParams(amplitude=np.float32(2), phase=np.float32(0.5))
    config = replace(REPTILE, meta_batch_size=2, hidden=(6, 5), learning_rate_iterations=4)
    algorithm = make(config, Repeated(), single(wave))
    state = jax.jit(algorithm.init)(jax.random.key(0))
    x, y = Repeated().points(None, wave, 5 * config.shots)
    batches = Points(x.reshape(5, config.shots, 1), y.reshape(5, config.shots, 1))
    step = jax.jit(algorithm.step)
    for epsilon in (0.1, 0.075, 0.05, 0.025, 0.0, 0.0):
        before = state.params.weights
        state, metrics = step(state)
        after = numpy_sgd(before, batches, 0.02)
        for layer, old, (kernel, bias) in zip(
            state.params.weights["params"].values(), before["params"].values(), after
        ):
            for k, moved in (("kernel", kernel), ("bias", bias)):
                expected = old[k] + epsilon * (moved - old[k])
                assert_close(layer[k], expected)
    assert algorithm.env_steps == 2 * (50 + 10)
    assert float(metrics["return"]) < 0


# --- data and updates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["maml", "reptile"])
def test_data_of_a_task(method):
    """All adaptation steps see the same points, with Reptile others in each step; outer points always differ."""
    config, wave = replace(SMALL, method=method, inner_steps=3), SinusoidParams(amplitude=2.0, phase=1.0)
    data = task_data(config, Sinusoid(), wave, jax.random.key(0))
    assert data.inner.x.shape == data.inner.y.shape == (3, 4, 1)
    assert data.outer.x.shape == (5, 1)
    x = np.concatenate([data.inner.x.ravel(), data.outer.x.ravel()])
    assert len(np.unique(x)) == 5 + (12 if method == "reptile" else 4)
    for points in (data.inner, data.outer):
        assert_close(points.y, 2 * np.sin(np.asarray(points.x) - 1))
    again = task_data(config, Sinusoid(), wave, jax.random.key(1))
    assert not np.intersect1d(x, np.concatenate([again.inner.x.ravel(), again.outer.x.ravel()])).size


def test_the_meta_loss_is_a_mean_over_tasks(float64):
    learned, data = problem(SMALL, tasks=3, steps=2)
    alone = [
        squared_error(SMALL, adapted_weights(SMALL, learned, jax.tree.map(lambda x, i=i: x[i], data.inner)), outer)
        for i, outer in enumerate(Points(*pair) for pair in zip(*data.outer))
    ]
    np.testing.assert_allclose(meta_loss(SMALL, learned, data), np.mean(alone), rtol=1e-12)


def test_an_update_follows_the_meta_gradient():
    """Two iterations of Adam on points that never change."""
    config, wave = replace(SMALL, inner_steps=2, outer_learning_rate=1e-2), SinusoidParams(amplitude=2.0, phase=0.5)
    algorithm = make(config, Repeated(), single(wave))
    state = quick_jit(algorithm.init)(jax.random.key(0))
    inner, outer = (Points(*Repeated().points(None, wave, n)) for n in (config.shots, config.outer_points))
    data = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), MetaBatch(repeated(inner, 2), outer))
    optimizer = optax.adam(1e-2)
    params, learner = state.params, optimizer.init(state.params)
    step, worlds = quick_jit(algorithm.step), [jax.random.key_data(state.world)]
    by_hand = quick_jit(jax.value_and_grad(partial(meta_loss, config)))
    for _ in range(2):
        state, metrics = step(state)
        error, gradient = by_hand(params, data)
        np.testing.assert_allclose(metrics["return"], -error, rtol=1e-4)
        change, learner = optimizer.update(gradient, learner)
        params = optax.apply_updates(params, change)
        worlds.append(jax.random.key_data(state.world))
    assert_close(state.params, params, 1e-3, scale=0.02)
    assert len(np.unique(np.concatenate(worlds), axis=0)) == 9  # tasks and points are drawn anew each time


def repeated(points, times):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (times, *x.shape)), points)


@pytest.mark.parametrize("method", ["anil", "meta-sgd", "fomaml", "pretrained"])
def test_what_each_method_adapts_at_test_time(method):
    """One step moves each weight that the method adapts by its rate times the gradient."""
    config = replace(SMALL, method=method, eval_inner_steps=1, eval_inner_learning_rate=0.03)
    learned, _ = problem(config)
    wave, grid = SinusoidParams(amplitude=2.0, phase=0.5), jnp.linspace(-4, 4, 9)[:, None]
    points = Points(*Sinusoid().points(jax.random.key(0), wave, 6))
    rates = jax.tree.map(lambda w: jnp.full_like(w, 0.03), learned.weights)
    if method == "meta-sgd":
        rates = learned.rates
    if method == "anil":
        rates = {"params": {k: jax.tree.map(lambda r: r * (k == "Dense_2"), v) for k, v in rates["params"].items()}}  # noqa: B023
    gradient = jax.grad(partial(squared_error, config))(learned.weights, points)
    after = jax.tree.map(lambda w, r, g: w - r * g, learned.weights, rates, gradient)
    expected = network_of(config).apply(after, grid)
    assert_close(adapted_predictions(config, learned, points, grid)[1], expected)


class Told(Sinusoid):
    """Sinusoids whose points show the task in the hundreds and the key in the rest. It records the keys."""

    asked = ()

    def points(self, key, params, count):
        self.asked = (*self.asked, key)
        level = 100 * jnp.floor(10 * params.amplitude) + jax.random.uniform(key)
        return jnp.zeros((count, 1)), jnp.broadcast_to(level, (count, 1))


def test_evaluations_draw_fresh_points_and_tasks(sinusoid):
    env = Told()
    algorithm = make(replace(SMALL, eval_inner_steps=0), env, sinusoid[1])
    state = algorithm.init(jax.random.key(0))
    state = replace(state, params=Learned(jax.tree.map(jnp.zeros_like, state.params.weights), ()))  # predicts 0
    tasks, draws = [], []
    for key in (1, 2):
        errors = -algorithm.evaluate(state, jax.random.key(key))["return"].values[:, 0]
        task, draw = np.divmod(np.sqrt(np.asarray(errors, np.float64)), 100)
        tasks.append(task)
        draws.append(draw.round(2))
    assert (np.sort(tasks[0]) != np.sort(tasks[1])).any()
    assert len(np.unique(tasks[0])) > 4
    assert len(np.unique(np.concatenate(draws))) > 12
    assert len({id(key) for key in env.asked}) == len(env.asked) == 4  # no key is used twice


# --- the algorithm -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sinusoid():
    return jaxrl_envs.make("sinusoid")


def test_evaluation_is_the_error_after_each_step(sinusoid):
    config = replace(SMALL, eval_inner_steps=3, eval_inner_learning_rate=0.03, eval_shots=6)
    algorithm = make(config, *sinusoid)
    state = algorithm.init(jax.random.key(0))
    measured = jax.jit(algorithm.evaluate)(state, jax.random.key(1))["return"]
    assert measured.axes == ("task", "adaptation_step")
    assert measured.values.shape == (8, 4)
    assert bool(jnp.all(measured.values <= 0))

    wave, grid = SinusoidParams(amplitude=np.float32(3), phase=np.float32(1)), jnp.linspace(-5, 5, 20)[:, None]
    points = Points(*Sinusoid().points(jax.random.key(2), wave, 6))
    after = adapted_predictions(config, state.params, points, grid)
    assert after.shape == (4, 20, 1)

    @jax.jit
    def by_hand(k):
        """After k steps of `adapt`."""
        batches = jax.tree.map(lambda p: jnp.stack([p] * 3), points)
        rates = jnp.where(jnp.arange(3) < k, 0.03, 0.0)
        weights = state.params.weights
        for i in range(3):
            batch = jax.tree.map(lambda p, i=i: p[i : i + 1], batches)
            weights = adapted_weights(replace(config, inner_learning_rate=rates[i]), Learned(weights, ()), batch)
        return network_of(config).apply(weights, grid)

    for k in range(4):
        assert_close(after[k], by_hand(k))


@pytest.mark.parametrize("method", ["maml", "reptile"])
def test_methods_learn(sinusoid, method):
    """Three hundred iterations leave an error after adaptation that is well below the untrained one's."""
    config = replace(
        SMALL,
        method=method,
        meta_batch_size=8,
        hidden=(20, 20),
        eval_tasks=300,
        inner_learning_rate=0.01,
        outer_learning_rate=3e-3,
    )
    if method == "reptile":
        config = replace(config, inner_steps=5, outer_learning_rate=0.3)
    algorithm = make(config, *sinusoid)

    @optimised_jit
    def run(key):
        start = algorithm.init(key)
        end = jax.lax.fori_loop(0, 300, lambda _, state: algorithm.step(state)[0], start)
        return [-algorithm.evaluate(state, key)["return"].values.mean(axis=0) for state in (start, end)]

    before, after = run(jax.random.key(0))
    assert float(after[5]) < 0.9 * float(before[5])


@pytest.mark.rounding
def test_numbers_that_are_only_multiplied_can_be_swept_by_vmap(sinusoid):
    state = make(SMALL, *sinusoid).init(jax.random.key(0))

    def one(inner_learning_rate, outer_learning_rate):
        return (
            make(
                replace(SMALL, inner_learning_rate=inner_learning_rate, outer_learning_rate=outer_learning_rate),
                *sinusoid,
            )
            .step(state)[0]
            .params
        )

    swept = jax.jit(jax.vmap(one))(jnp.array([0.01, 0.1]), jnp.array([1e-3, 1e-2]))
    alone = jax.jit(one)(0.1, 1e-2)
    assert_close(jax.tree.map(lambda x: x[1], swept), alone, 1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "e-maml"}, "method must be one of maml, fomaml, anil, meta-sgd, reptile, pretrained, got 'e-maml'"),
        ({"shots": 0}, "shots must be positive, got 0"),
        ({"inner_steps": 0}, "inner_steps must be positive, got 0"),
        ({"eval_inner_learning_rate": -1.0}, "eval_inner_learning_rate must be positive"),
        ({"method": "reptile", "max_grad_norm": 1.0}, "max_grad_norm is for methods with a gradient; reptile has none"),
        ({"hidden": (4, 0)}, "hidden layers must have positive sizes"),
        ({"env": "navigation2d"}, "needs tasks with data sets, such as sinusoid; Navigation2D has none"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(jaxrl_hier.UsageError, match=message):
        jaxrl_hier.make("few-shot-regression", **settings)
