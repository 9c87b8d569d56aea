"""Every algorithm on every kind of observations and actions: it takes them, or says in one line what it takes."""

import jax
import jax.numpy as jnp
import pytest
from gymnax.environments import environment, spaces

import jaxrl_hier
from jaxrl_envs.goals import GoalSpace
from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError

FLAT = spaces.Box(-1.0, 1.0, (2,))
OBSERVATIONS = {
    "Discrete": spaces.Discrete(3),
    "Box": FLAT,
    "picture": spaces.Box(0.0, 1.0, (4, 4, 1)),
    "goals": GoalSpace(FLAT, FLAT),
    "discrete goals": GoalSpace(spaces.Discrete(3), spaces.Discrete(3)),
    "goals in tuples": GoalSpace(spaces.Tuple((FLAT, FLAT)), FLAT),
    "Dict": spaces.Dict({"a": FLAT, "b": spaces.Discrete(2)}),
    "Tuple": spaces.Tuple((FLAT, spaces.Discrete(2))),
    "none": None,
    "no space": object(),
}
ACTIONS = {
    "Discrete": spaces.Discrete(2),
    "Box": FLAT,
    "unbounded": spaces.Box(-jnp.inf, jnp.inf, (2,)),
    "matrix": spaces.Box(-1.0, 1.0, (2, 2)),
    "booleans": spaces.Box(0, 1, (2,), jnp.bool_),
    "Dict": spaces.Dict({"a": spaces.Discrete(2)}),
    "Tuple": spaces.Tuple((FLAT, spaces.Discrete(2))),
    "none": None,
    "no space": object(),
}


def zeros(space):
    if isinstance(space, spaces.Dict):
        return {name: zeros(part) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(zeros(part) for part in space.spaces)
    return jnp.zeros(getattr(space, "shape", ()), getattr(space, "dtype", jnp.float32))


class Anything(environment.Environment):
    """An environment with any spaces, in which nothing happens for eight steps."""

    def __init__(self, observations, actions):
        super().__init__()
        self.observations, self.actions = observations, actions

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=8)

    def observation_space(self, params=None):
        return self.observations

    def action_space(self, params=None):
        return self.actions

    def reset_env(self, key, params):
        return zeros(self.observations), environment.EnvState(time=jnp.zeros((), jnp.int32))

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1)
        return zeros(self.observations), state, jnp.zeros(()), jnp.zeros((), bool), {}

    def compute_reward(self, achieved, desired, params):
        return jnp.zeros(())


def outcome(name, observations, actions):
    """True where the algorithm can begin on the spaces, else its message."""
    env = Anything(OBSERVATIONS[observations], ACTIONS[actions])
    try:
        jax.eval_shape(jaxrl_hier.make(name, env=env).init, jax.random.key(0))
        return True
    except UsageError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 250
    return message


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS.keys() - {"fomaml", "reptile", "anil", "e-maml", "promp"}))
def test_spaces_are_taken_or_named(name):
    taken = set()
    for observations in OBSERVATIONS:
        found = [outcome(name, observations, actions) for actions in ("Discrete", "Box")]
        if True in found:
            taken.add(observations)
        else:
            assert any("Anything" in message or "observations" in message for message in found), found
    for actions in ACTIONS:
        found = [outcome(name, observations, actions) for observations in taken or {"Box"}]
        assert True in found or all("action" in x or "Anything" in x for x in found), found
    assert not taken & {"Dict", "Tuple", "none", "no space", "goals in tuples"}
