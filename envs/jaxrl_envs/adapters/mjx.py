"""Robots of Gymnasium in compiled form, by MuJoCo XLA (MJX), for accelerators.

    jaxrl-hier train ppo --env mjx:HalfCheetah-v5 --environments 2048        pip install 'jaxrl-hier[mjx]'

The model is Gymnasium's own file and the rules are those of its environment. From one state a step of HalfCheetah and
Walker2d is that of `mujoco:` up to the rounding of single precision, and so is a step of Ant in which no foot touches
the ground; where one does, MJX's solver finds forces that differ by some percent. Humanoid is left out. On a CPU
`mujoco:` is many times faster.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from jaxrl_envs.adapters import package, raw_observations, require_name
from jaxrl_envs.adapters.mujoco import HostRobot, Stepped

EXTRA = "mjx"


class Rules(NamedTuple):
    """What Gymnasium's environments of these robots have in common; names are those of its settings."""

    free: bool  # whether the robot moves in all directions, and not in a plane
    ctrl_cost_weight: float
    reset_noise_scale: float
    uniform_velocities: bool = False  # noise at reset; else normal
    healthy_reward: float = 0.0
    healthy_z_range: tuple[float, float] | None = None
    healthy_angle_range: tuple[float, float] | None = None
    terminate_when_unhealthy: bool = True
    contact_cost_weight: float = 0.0  # of contact forces, clipped to ±1
    include_cfrc_ext_in_observation: bool = False
    exclude_current_positions_from_observation: bool = True
    largest_velocity: float = np.inf  # in observations


RULES = {
    "HalfCheetah-v5": Rules(free=False, ctrl_cost_weight=0.1, reset_noise_scale=0.1),
    "Ant-v5": Rules(
        free=True,
        ctrl_cost_weight=0.5,
        reset_noise_scale=0.1,
        healthy_reward=1.0,
        healthy_z_range=(0.2, 1.0),
        contact_cost_weight=5e-4,
        include_cfrc_ext_in_observation=True,
    ),
    "Walker2d-v5": Rules(
        free=False,
        ctrl_cost_weight=1e-3,
        reset_noise_scale=5e-3,
        uniform_velocities=True,
        healthy_reward=1.0,
        healthy_z_range=(0.8, 2.0),
        healthy_angle_range=(-1.0, 1.0),
        largest_velocity=10.0,
    ),
}


@struct.dataclass
class CompiledState:
    """What the next step depends on."""

    qpos: jax.Array  # [Q] float32
    qvel: jax.Array  # [V] float32
    qacc_warmstart: jax.Array  # [V] float32
    place: jax.Array  # [2] float32, where Gymnasium last measured the robot


class CompiledRobot:
    """One of Gymnasium's robots, with the interface of `mujoco.HostRobot`.

    Args:
        id: in Gymnasium's registry.
        told: what a step returns besides: "reward_forward", "x_velocity", "y_velocity", "x_position", "y_position".
        settings: of Gymnasium's environment, those of `Rules`.

    Raises:
        ValueError: MJX is not installed, there is no such robot here, or it has no such setting.
    """

    def __init__(self, id: str, told: Sequence[str] = (), **settings: Any):
        self._mjx = package("mujoco.mjx", "MJX", EXTRA)
        require_name(id, RULES, "jaxrl_envs.adapters.mjx")
        if wrong := [name for name in settings if name not in Rules._fields]:
            raise ValueError(f"{id} has no setting {wrong[0]} here; it has {', '.join(Rules._fields)}")
        self.id, self.told, self.rules = id, tuple(told), RULES[id]._replace(**settings)
        gymnasium = package("gymnasium", "Gymnasium", EXTRA)
        env, self.limit = gymnasium.make(id).unwrapped, gymnasium.spec(id).max_episode_steps
        self.substeps, self.seconds = env.frame_skip, env.dt
        self._model = self._mjx.put_model(env.model, impl="jax")
        self._start = np.concatenate([env.init_qpos, env.init_qvel]).astype(np.float32)
        self.actions = spaces.Box(env.action_space.low, env.action_space.high, env.action_space.shape, jnp.float32)
        seen = jax.eval_shape(lambda: self.reset(jnp.zeros(2, jnp.uint32))[1])
        self.observations = raw_observations(seen.shape)

    def reset(self, words: jax.Array) -> tuple[CompiledState, jax.Array]:
        """State and first observation of an episode, with noise of Gymnasium's distribution.

        Args:
            words: [2] uint32, of a key.
        """
        key_position, key_velocity = jax.random.split(jax.random.wrap_key_data(words))
        rules, positions = self.rules, self._model.nq
        uniform = lambda key, count: jax.random.uniform(key, (count,), minval=-1.0, maxval=1.0)
        of_velocities = uniform if rules.uniform_velocities else lambda key, count: jax.random.normal(key, (count,))
        noise = jnp.concatenate([uniform(key_position, positions), of_velocities(key_velocity, self._model.nv)])
        start = self._start + rules.reset_noise_scale * noise
        data = self._mjx.make_data(self._model).replace(qpos=start[:positions], qvel=start[positions:])
        data = self._mjx.forward(self._model, data)
        return self._state(data), self._observation(data)

    def step(self, state: CompiledState, action: jax.Array) -> Stepped:
        """Gymnasium's step, of the simulator's steps that an action lasts.

        Args:
            action: [A] float32.
        """
        data = self._mjx.make_data(self._model).replace(
            qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.qacc_warmstart, ctrl=action
        )
        substep = lambda data, _: (self._mjx.step(self._model, data), None)
        data, _ = jax.lax.scan(substep, data, None, length=self.substeps)
        if self.rules.free:
            data = self._mjx.rne_postconstraint(self._model, data)
        after, rules = self._state(data), self.rules
        velocity, healthy = (after.place - state.place) / self.seconds, self._healthy(data)
        costs = rules.ctrl_cost_weight * jnp.sum(action**2)
        if rules.contact_cost_weight:
            costs += rules.contact_cost_weight * jnp.sum(self._contacts(data) ** 2)
        position = data.qpos[:2] if rules.free else jnp.stack([data.qpos[0], jnp.zeros(())])
        known = {"reward_forward": velocity[0], "x_velocity": velocity[0], "y_velocity": velocity[1]}
        known |= {"x_position": position[0], "y_position": position[1]}
        return Stepped(
            state=after,
            obs=self._observation(data),
            reward=velocity[0] + rules.healthy_reward * healthy - costs,
            terminated=~healthy & rules.terminate_when_unhealthy,
            told=jnp.stack([known[name] for name in self.told]) if self.told else jnp.zeros(0),
        )

    def picture(self, state: CompiledState) -> np.ndarray:
        """A state as MuJoCo draws it, uint8 [height, width, 3]; needs OpenGL, without a screen MUJOCO_GL=egl."""
        return HostRobot(self.id).picture_of(np.asarray(state.qpos), np.asarray(state.qvel))

    def _state(self, data: Any) -> CompiledState:
        # Gymnasium measures the ant at its torso, where that was before the last step of the simulator
        place = data.xpos[1, :2] if self.rules.free else jnp.stack([data.qpos[0], jnp.zeros(())])
        return CompiledState(data.qpos, data.qvel, data.qacc_warmstart, place)

    def _contacts(self, data: Any) -> jax.Array:
        """The contact forces on each body, [bodies, 6], clipped; MJX tells users to read them from `_impl`."""
        return jnp.clip(data._impl.cfrc_ext, -1.0, 1.0)

    def _healthy(self, data: Any) -> jax.Array:
        """Whether the robot stands, [] bool."""
        healthy, rules = jnp.ones((), bool), self.rules
        if rules.healthy_z_range:
            low, high = rules.healthy_z_range
            height = data.qpos[2 if rules.free else 1]
            healthy &= (low <= height) & (height <= high)
        if rules.healthy_angle_range:
            low, high = rules.healthy_angle_range
            healthy &= (low < data.qpos[2]) & (data.qpos[2] < high)
        return healthy

    def _observation(self, data: Any) -> jax.Array:
        rules = self.rules
        left_out = (2 if rules.free else 1) * rules.exclude_current_positions_from_observation
        velocities = jnp.clip(data.qvel, -rules.largest_velocity, rules.largest_velocity)
        parts = [data.qpos[left_out:], velocities]
        if rules.include_cfrc_ext_in_observation:
            parts.append(self._contacts(data)[1:].ravel())
        return jnp.concatenate(parts)
