"""Every learner with continuous actions: what reaches the environment lies in its space, to the last bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

import jaxrl_hier
from jaxrl_envs import Trial
from jaxrl_envs.tasks import Tasks, single
from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.policy import Policy
from tests.line import Line, variant
from tests.line import Params as LineParams
from tests.sizes import SIZES

LOW = np.array([-0.3, -0.6, 0.0, 0.1, -3e38, 1.0], np.float64)
HIGH = np.array([1.1, 0.1, 0.1, 0.7, 3e38, 1.0], np.float64)
# float64, as Python's numbers: to float32 a bound such as 0.1 is one that lies outside
LOWEST = np.array(
    [x if x >= low else np.nextafter(x, np.float32(np.inf)) for x, low in zip(LOW.astype(np.float32), LOW)]
)
HIGHEST = np.array(
    [x if x <= high else np.nextafter(x, np.float32(-np.inf)) for x, high in zip(HIGH.astype(np.float32), HIGH)]
)

REPLAY = {"environments": 4, "batch_size": 4, "capacity": 400, "warmup_steps": 40, "hidden": (4,)}
LEARNERS: dict[str, dict[str, Any]] = {
    "td3": REPLAY | {"exploration_noise": 3.0},
    "sac": REPLAY,
    "hiro": REPLAY
    | {
        "manager_updates": 1,
        "goal_horizon": 2,
        "goal_dimensions": (0,),
        "rollout_length": 4,
        "exploration_noise": 3.0,
    },
    "pearl": {
        "train_tasks": 2,
        "tasks_per_iteration": 1,
        "initial_steps": 5,
        "prior_steps": 5,
        "posterior_steps": 5,
        "updates": 1,
        "meta_batch_size": 2,
        "batch_size": 4,
        "context_size": 4,
        "hidden": (4,),
        "encoder_hidden": (4,),
        "capacity": 40,
        "eval_tasks": 1,
    },
    "maml": {"meta_batch_size": 2, "episodes_per_task": 2, "hidden": (4,), "eval_tasks": 1},
    "ppo": {"environments": 2, "rollout_length": 4, "minibatch_size": 8, "hidden": (4,)},
    "option-ppo": {"environments": 2, "rollout_length": 4, "minibatch_size": 8, "hidden": (4,), "num_options": 2},
    "mlsh": {"num_sub_policies": 2, "meta_batch_size": 2, "episodes_per_task": 2, "hidden": (4,), "eval_tasks": 1},
    "rl2": {"environments": 2, "minibatch_size": 2, "memory_size": 4, "eval_tasks": 1},
    "varibad": {"environments": 2, "minibatch_size": 2, "elbo_minibatch_size": 2, "memory_size": 4, "eval_tasks": 1},
}
GAUSSIAN = ("maml", "rl2", "varibad", "mlsh", "ppo", "option-ppo")  # unbounded
ACT_ALIKE = {"reinforce", "a2c", "trpo", "recurrent-ppo"}  # as ppo and rl2
TD3 = {"ddpg", "her-ddpg", "her-td3", "her-sac"}  # the same agents with other settings
MAML = {"fomaml", "reptile", "anil", "e-maml", "promp", "meta-sgd"}  # the same agent, learning otherwise
NO_ENVIRONMENT = {"few-shot-regression"}


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 5


@struct.dataclass
class State(environment.EnvState):
    time: jax.Array


class Judge(environment.Environment):
    """Pays 1 for an action inside the box and in its dtype, else 0."""

    def __init__(self, dtype=jnp.float32):
        self.dtype = dtype

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        return jnp.zeros(2), State(time=jnp.zeros((), jnp.int32))

    def step_env(self, key, state, action, params):
        assert action.dtype == jax.dtypes.canonicalize_dtype(self.dtype)
        inside = jnp.all((action >= LOWEST) & (action <= HIGHEST))
        return jnp.zeros(2), State(time=state.time + 1), inside.astype(jnp.float32), jnp.zeros((), bool), {}

    def action_space(self, params=None):
        return spaces.Box(LOW, HIGH, LOW.shape, self.dtype)

    def observation_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (2,))


def wild(params):
    """An actor that wants what lies far away; 1e3 times the weights."""
    return jax.tree.map(lambda x: 1e3 * x if jnp.issubdtype(x.dtype, jnp.floating) else x, params)


@pytest.mark.parametrize("name", list(LEARNERS))
def test_environments_get_actions_inside_their_space(name):
    env = Judge(np.float64 if name == "sac" else jnp.float32)
    tasks = single(env.default_params)
    if name in ("rl2", "varibad"):
        env = Trial(env, 2)
        tasks = env.tasks_of(tasks)
    algorithm = jaxrl_hier.make(name, env, tasks=tasks, **LEARNERS[name])

    @jax.jit
    def play(key):
        key_init, key_world = jax.random.split(key)
        state = algorithm.init(key_init)
        params = wild(state.params)
        world = begin_worlds(env, algorithm.agent, tasks, params, key_world, 8)
        return state.memory, rollout(env, algorithm.agent, tasks, params, world, 12)[1]

    memory, seen = play(jax.random.key(0))
    if name not in GAUSSIAN:
        ring = memory.ring if name == "pearl" else memory
        held = np.arange(ring.steps.reward.shape[1]) < np.asarray(ring.size)[:, None]
        assert held.sum() >= 10
        assert np.all(np.asarray(ring.steps.reward)[held] == 1)
    assert np.all(seen.reward == 1)
    assert np.isfinite(seen.action).all()
    # policies with unbounded Gaussians learn from the action that they drew
    outside = np.any((np.asarray(seen.action) < LOWEST) | (np.asarray(seen.action) > HIGHEST))
    assert outside == (name in GAUSSIAN)


def test_no_other_learner_takes_continuous_actions():
    env = Judge()
    for name in registry.ALGORITHMS.keys() - LEARNERS.keys() - TD3 - MAML - ACT_ALIKE - NO_ENVIRONMENT:
        with pytest.raises(UsageError):
            jaxrl_hier.make(name, env)


@pytest.mark.parametrize("name", ["td3", "sac", "hiro", "pearl"])
def test_learners_that_need_bounds_say_so(name, monkeypatch):
    for high in (np.inf, np.where(HIGH == 0.1, np.inf, HIGH)):
        space = spaces.Box(LOW, high, LOW.shape)
        monkeypatch.setattr(Judge, "action_space", lambda self, params=None, space=space: space)
        with pytest.raises(UsageError, match="needs bounded actions; the bounds of Judge are infinite"):
            jaxrl_hier.make(name, Judge(), **LEARNERS[name])


@pytest.mark.parametrize("name", ["td3", "sac", "hiro", "pearl"])
def test_tasks_with_actions_that_scaling_never_reaches_are_refused(name):
    """Bounds that depend on the task; those of the default are ±1."""
    env = variant(action_space=lambda self, params: spaces.Box(-1 - params.target, 1 + params.target, (1,)))
    narrow, wide = (lambda key, by=by: LineParams(target=by * jax.random.uniform(key)) for by in (-0.5, 3.0))
    jaxrl_hier.make(name, env, Tasks(narrow), **LEARNERS[name])
    with pytest.raises(
        UsageError, match=r"the bounds of default_params, -1 to 1, and .* actions from -3\.\d* to 3\.\d*:"
    ):
        jaxrl_hier.make(name, env, Tasks(wide), **LEARNERS[name])


@pytest.mark.parametrize("name", ["ppo", "option-ppo", "maml", "rl2", "varibad", "mlsh"])
@pytest.mark.parametrize("ends", [(3.0, 10.0), (-7.0, -6.5), (2.0, np.inf)], ids=str)
def test_gaussian_policies_begin_inside_bounds_without_zero(name, ends):
    """From 0, every action would be the same bound, and nothing would be learned."""
    env = Line(False, *ends)
    algorithm = jaxrl_hier.make(name, env, **SIZES[name])
    policy = Policy(algorithm, jax.jit(algorithm.agent.init)(jax.random.key(0)), env, greedy=False)
    actions = np.array([policy.act(np.zeros(1))[0] for _ in range(20)])
    assert len(set(actions.tolist())) > 1
