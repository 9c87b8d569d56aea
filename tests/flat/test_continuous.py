"""TD3, DDPG and SAC: targets by hand, the squashed Gaussian against its density, actions within bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from scipy.stats import norm

import jaxrl_envs
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import ActInput, Transition
from jaxrl_hier.flat import sac, td3
from jaxrl_hier.learning import off_policy
from jaxrl_hier.learning.distributions import DiagonalGaussian
from tests.close import assert_close
from tests.rings import of_one_step

SMALL = {"hidden": (5,), "batch_size": 64, "capacity": 1000, "warmup_steps": 20, "discount": 0.9}
DDPG = {"critics": 1, "policy_delay": 1, "target_noise": 0.0}


@pytest.fixture(scope="module")
def pendulum():
    return jaxrl_envs.make("Pendulum-v1")


def a_step(end):
    """One step of the pendulum, whose torques reach to ±2."""
    vector = lambda *x: jnp.array(x, jnp.float32)
    ends = (jnp.asarray(end == "terminated"), jnp.asarray(end == "truncated"))
    return Transition(
        vector(0.6, 0.8, -1.0), vector(1.5), jnp.float32(-3.0), *ends, vector(1.0, 0.0, 2.0), jnp.asarray(False), ()
    )


def compiled(algorithm):
    """`init` with the parameters of another key beside it, and `learn`."""
    return jax.jit(lambda key, other: (algorithm.init(key), algorithm.agent.init(other))), jax.jit(algorithm.learn)


def remembered(begin, t):
    """A state that remembers nothing but the step `t`, with slow copies that differ from what is learned."""
    state, other = begin(jax.random.key(0), jax.random.key(1))
    slow = {"target_critics": other.critics}
    slow |= {"target_actor": other.actor} if hasattr(state.learner, "target_actor") else {}
    return state.replace(memory=of_one_step(state.memory, t), learner=state.learner._replace(**slow))


def forward(params, x):
    """The network of one hidden layer, in NumPy."""
    first, second = (jax.tree.map(np.asarray, params["params"][f"Dense_{i}"]) for i in range(2))
    return np.maximum(x @ first["kernel"] + first["bias"], 0) @ second["kernel"] + second["bias"]


def critic_values(params, inputs, unit):
    count = jax.tree.leaves(params)[0].shape[0]
    one = lambda i: forward(jax.tree.map(lambda x: x[i], params), np.concatenate([inputs, unit], axis=-1))
    return np.array([float(one(i)[0]) for i in range(count)])


@pytest.fixture(scope="module", params=[{"target_noise": 0.0}, DDPG], ids=["td3", "ddpg"])
def deterministic(request, pendulum):
    algorithm = td3.make(td3.Config(**SMALL, **request.param), *pendulum)
    return request.param, *compiled(algorithm)


@pytest.mark.parametrize("end", ["none", "terminated", "truncated"])
def test_update_of_td3_and_ddpg_by_hand(deterministic, end):
    kind, begin, learn = deterministic
    t = a_step(end)
    before = remembered(begin, t)
    after, metrics = learn(before, before.world, jax.tree.map(lambda x: x[None, None], t))
    following = np.tanh(forward(before.learner.target_actor, np.asarray(t.next_obs)))
    least = critic_values(before.learner.target_critics, np.asarray(t.next_obs), following).min()
    y = -3.0 + (0.0 if end == "terminated" else 0.9 * least)
    q = critic_values(before.params.critics, np.asarray(t.obs), np.array([0.75]))  # 1.5 of 2
    assert len(q) == kind.get("critics", 2)
    assert float(metrics["critic_loss"]) == pytest.approx(np.sum((y - q) ** 2), rel=1e-4)
    improved = not np.array_equal(*(jax.tree.leaves(s.params.actor)[1] for s in (before, after)))
    assert improved == (kind.get("policy_delay", 2) == 1)
    if improved:
        rate = td3.Config().target_rate
        expected = jax.tree.map(
            lambda slow, fast: (1 - rate) * slow + rate * fast, before.learner.target_critics, after.params.critics
        )
        assert_close(after.learner.target_critics, expected)


def test_every_second_update_improves_the_actor(pendulum):
    algorithm = td3.make(td3.Config(**SMALL), *pendulum)
    state, step, moved = jax.jit(algorithm.init)(jax.random.key(0)), jax.jit(algorithm.step), []
    for _ in range(6):
        after, _ = step(state)
        same = jax.tree.map(
            np.array_equal, (state.params.actor, state.learner[:2]), (after.params.actor, after.learner[:2])
        )
        moved.append(not all(jax.tree.leaves(same)))
        state = after
    assert moved == [False, True] * 3


def test_smoothing_is_clipped_twice():
    action, noise = jnp.array([[0.9], [0.0], [-0.2]]), jnp.array([[0.3], [-2.0], [0.1]])
    assert_close(td3.smoothed(action, noise, 0.5), [[1.0], [-0.5], [-0.1]])


# SAC


def test_density_of_the_squashed_gaussian():
    """log π is that of the change of variables, and integrates to one; it stays finite where tanh rounds to 1."""
    mean, std = 0.3, 0.8
    policy = DiagonalGaussian(jnp.array([mean]), jnp.log(jnp.array([std])))
    action, log_prob = jax.vmap(lambda k: sac.squashed_sample(policy, k))(jax.random.split(jax.random.key(0), 500))
    density = lambda a: norm.logpdf(np.arctanh(a), mean, std) - np.log1p(-(a**2))
    np.testing.assert_allclose(log_prob, density(np.asarray(action, np.float64)[:, 0]), atol=1e-3)
    grid = np.linspace(-1, 1, 20_001)[1:-1]
    assert np.trapezoid(np.exp(density(grid)), grid) == pytest.approx(1.0, abs=1e-6)
    both = DiagonalGaussian(jnp.array([mean, -mean]), jnp.log(jnp.array([std, std])))
    action, log_prob = sac.squashed_sample(both, jax.random.key(1))
    assert float(log_prob) == pytest.approx(density(float(action[0])) + density(-float(action[1])), abs=1e-4)
    far = sac.squashed_sample(DiagonalGaussian(jnp.full(1, 30.0), jnp.zeros(1)), jax.random.key(0))
    assert float(far[0][0]) == 1.0
    assert np.isfinite(far[1])


def test_soft_value_by_hand():
    q, log_prob = jnp.array([[1.0, 5.0], [2.0, 3.0]]), jnp.array([-0.5, 2.0])
    assert_close(sac.soft_value(q, log_prob, 0.1), [1.05, 2.8])


@pytest.fixture(scope="module")
def soft(pendulum):
    config = sac.Config(**{**SMALL, "batch_size": 4096, "capacity": 5000}, temperature=0.05, target_entropy=3.0)
    return compiled(sac.make(config, *pendulum))


@pytest.mark.parametrize("end", ["none", "terminated", "truncated"])
def test_update_of_sac_by_hand(soft, end):
    """At a standard deviation of e⁻⁵, fixed by the clip, actions are all but certain and log π is known on average."""
    begin, learn = soft
    t = a_step(end)
    before = remembered(begin, t)
    bias = before.params.actor["params"]["Dense_1"]["bias"]
    before.params.actor["params"]["Dense_1"]["bias"] = bias.at[1].set(-50.0)
    after, metrics = learn(before, before.world, jax.tree.map(lambda x: x[None, None], t))
    mean = forward(before.params.actor, np.asarray(t.next_obs))[:1]
    log_prob = 5.0 - 0.5 * np.log(2 * np.pi) - 0.5 - np.log(1 - np.tanh(mean[0]) ** 2)
    least = critic_values(before.learner.target_critics, np.asarray(t.next_obs), np.tanh(mean)).min()
    y = -3.0 + (0.0 if end == "terminated" else 0.9 * (least - 0.05 * log_prob))
    q = critic_values(before.params.critics, np.asarray(t.obs), np.array([0.75]))
    assert float(metrics["critic_loss"]) == pytest.approx(0.5 * np.sum((y - q) ** 2), rel=0.01)
    assert float(metrics["temperature"]) == pytest.approx(0.05, rel=1e-5)
    assert float(after.params.log_alpha) > np.log(0.05)  # too little entropy: it is paid for better
    assert float(metrics["entropy"]) < 3.0


# Actions


def test_actions_are_scaled_to_the_bounds():
    class Uneven:
        name, default_params = "Uneven", None
        low, high = jnp.array([-1.0, 0.0, 3.0]), jnp.array([1.0, 10.0, 4.0])

        def action_space(self, params):
            return spaces.Box(self.low, self.high, (3,), jnp.float32)

    to_action, to_unit = off_policy.action_scaling(Uneven(), "TD3", "dqn")
    np.testing.assert_allclose(to_action(jnp.full(3, -1.0)), Uneven.low)
    np.testing.assert_allclose(to_action(jnp.full(3, 1.0)), Uneven.high)
    np.testing.assert_allclose(to_unit(to_action(jnp.array([0.3, -0.7, 0.1]))), [0.3, -0.7, 0.1], atol=1e-6)
    Uneven.high = jnp.array([1.0, jnp.inf, 4.0])
    with pytest.raises(UsageError, match="TD3 needs bounded actions; the bounds of Uneven are infinite"):
        off_policy.action_scaling(Uneven(), "TD3", "dqn")


@pytest.mark.parametrize("module", [td3, sac])
def test_agents_stay_within_bounds_and_greedy_is_certain(pendulum, module):
    algorithm = module.make(module.Config(**SMALL), *pendulum)
    params = algorithm.agent.init(jax.random.key(0))
    inp = ActInput(jnp.array([0.6, 0.8, -1.0]), jnp.zeros(1), jnp.zeros(()), jnp.ones((), bool))
    keys = jax.random.split(jax.random.key(1), 500)
    act = lambda greedy: jax.jit(jax.vmap(lambda k: algorithm.agent.act(params, (), inp, k, greedy)[0]))(keys)
    wild, greedy = np.asarray(act(False)), np.asarray(act(True))
    assert (np.abs(wild) <= 2.0).all()
    assert wild.std() > 0.1
    assert (greedy == greedy[0]).all()
    assert abs(greedy[0] - np.median(wild)) < 0.2


# What a user can get wrong


@pytest.mark.parametrize(
    ("module", "env", "settings", "message"),
    [
        (sac, "CartPole-v1", {}, "SAC needs a flat vector of continuous actions; CartPole-v1 has Discrete actions"),
        (td3, "four-rooms", {}, "TD3 needs a flat vector of continuous actions; FourRooms has Discrete actions"),
        (td3, "Pendulum-v1", {"her": "final"}, "hindsight needs an environment with goals"),
        (
            td3,
            "Pendulum-v1",
            {"capacity": 150, "warmup_steps": 0, "batch_size": 100},
            "an episode has 200; use at least 200",
        ),
        (td3, "Pendulum-v1", {"policy_delay": 0}, "policy_delay must be positive, got 0"),
        (td3, "Pendulum-v1", {"random_actions": 1.2}, r"random_actions must lie in \[0, 1\], got 1.2"),
        (td3, "Pendulum-v1", {"hidden": ()}, "hidden needs at least one layer, got none"),
        (sac, "Pendulum-v1", {"hidden": ()}, "hidden needs at least one layer, got none"),
        (sac, "Pendulum-v1", {"temperature": 0.0}, "temperature must be positive, got 0.0"),
        (sac, "Pendulum-v1", {"reward_range": (-20.0, 0.0)}, "SAC's values include entropy"),
    ],
)
def test_bad_settings(module, env, settings, message):
    with pytest.raises(UsageError, match=message):
        module.make(module.Config(**settings), *jaxrl_envs.make(env))
