"""stable-baselines3 and SBX with HerReplayBuffer, for `benchmarks.throughput.her`, which runs this file.

    PYTHON sb3_her.py --algorithm dqn --updates 6000 --threads 1

`dqn` is DQN on bit flipping with n = 15, `sac` and `sbx` are SAC on point reach: environments of this project in NumPy,
with the same rules, random starts and goals. One environment, one update per step; the sizes are those of `her.py`.

Prints one JSON line: updates per second of each block of 500 (without the random steps), and the seconds from the
construction of the learner to the first evaluation with at least 98 % success, evaluations and whatever is compiled on
the way included; null if there was none.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN, SAC, HerReplayBuffer

BITS, EPISODES = 15, 100


class BitFlipping(gymnasium.Env):
    """n bits, n steps; an episode does not end at the goal."""

    steps = BITS

    def __init__(self) -> None:
        pattern = gymnasium.spaces.MultiBinary(BITS)
        names = ("observation", "achieved_goal", "desired_goal")
        self.observation_space = gymnasium.spaces.Dict(dict.fromkeys(names, pattern))
        self.action_space = gymnasium.spaces.Discrete(BITS)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.bits, self.goal = self.np_random.integers(0, 2, (2, BITS), np.int8)
        self.time = 0
        return self.look(), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.bits = self.bits.copy()
        self.bits[action] ^= 1
        self.time += 1
        reward = float(self.compute_reward(self.bits, self.goal, {}))
        return self.look(), reward, False, self.time == self.steps, {"is_success": reward == 0}

    def look(self) -> dict[str, np.ndarray]:
        return {"observation": self.bits, "achieved_goal": self.bits, "desired_goal": self.goal}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        return -np.any(achieved != desired, axis=-1).astype(np.float32)


class PointReach(gymnasium.Env):
    """A point mass in the plane and where it should be, as in `jaxrl_envs.point_goals`."""

    steps, step_size, response, tolerance = 50, 0.1, 0.2, 0.05

    def __init__(self) -> None:
        box = lambda bound, size: gymnasium.spaces.Box(-bound, bound, (size,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            {"observation": box(2.0, 4), "achieved_goal": box(1.0, 2), "desired_goal": box(1.0, 2)}
        )
        self.action_space = box(1.0, 2)
        self.kept = np.float32(np.exp(-self.step_size / self.response))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.velocity = np.zeros((2, 2), np.float32)
        self.goal = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        self.time = 0
        return self.look(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        asked = np.clip(action, -1, 1)
        velocity = asked + (self.velocity - asked) * self.kept
        position = self.position + self.step_size * velocity
        self.velocity = np.where(np.abs(position) > 1, 0, velocity).astype(np.float32)
        self.position = np.clip(position, -1, 1).astype(np.float32)
        self.time += 1
        reward = float(self.compute_reward(self.position, self.goal, {}))
        return self.look(), reward, False, self.time == self.steps, {"is_success": reward == 0}

    def look(self) -> dict[str, np.ndarray]:
        whole = np.concatenate([self.position, self.velocity])
        return {"observation": whole, "achieved_goal": self.position, "desired_goal": self.goal}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        return -(np.linalg.norm(achieved - desired, axis=-1) > self.tolerance).astype(np.float32)


def build(algorithm: str, seed: int) -> Any:
    """The learner, with the sizes of her.py."""
    env = BitFlipping() if algorithm == "dqn" else PointReach()
    common: dict[str, Any] = {
        "replay_buffer_class": HerReplayBuffer,
        "replay_buffer_kwargs": {"n_sampled_goal": 4, "goal_selection_strategy": "future"},
        "learning_starts": 1000, "train_freq": 1, "gradient_steps": 1, "batch_size": 256, "buffer_size": 100_000,
        "learning_rate": 1e-3, "gamma": 0.98, "seed": seed, "device": "cpu",
    }  # fmt: skip
    if algorithm == "dqn":
        return DQN(
            "MultiInputPolicy", env, policy_kwargs={"net_arch": [256]}, tau=0.05, target_update_interval=1,
            exploration_initial_eps=0.1, exploration_final_eps=0.1, **common,
        )  # fmt: skip
    if algorithm == "sbx":
        common.pop("device")
    learner = import_module("sbx").SAC if algorithm == "sbx" else SAC
    return learner("MultiInputPolicy", env, policy_kwargs={"net_arch": [256, 256]}, tau=0.005, **common)


def success(model: Any, kind: type[BitFlipping] | type[PointReach]) -> float:
    """Of greedy episodes side by side; at the goal in any step of bit flipping, in the last step of reaching."""
    envs = [kind() for _ in range(EPISODES)]
    looks = [env.reset(seed=i)[0] for i, env in enumerate(envs)]
    reached = np.zeros(EPISODES, bool)
    for _ in range(kind.steps):
        together = {name: np.stack([look[name] for look in looks]) for name in looks[0]}
        actions, _ = model.predict(together, deterministic=True)
        results = [env.step(action) for env, action in zip(envs, actions)]
        looks = [result[0] for result in results]
        now = np.array([result[4]["is_success"] for result in results])
        reached = now if kind is PointReach else reached | now
    return float(reached.mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm", choices=("dqn", "sac", "sbx"), default="dqn")
    parser.add_argument("--updates", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--goal", type=float, default=0.98)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.algorithm == "sbx":
        import_module("sbx")  # as the others, before the clock runs
    begun = time.perf_counter()
    model = build(arguments.algorithm, arguments.seed)
    model.learn(1001, reset_num_timesteps=True)  # the random steps, and the first update
    speeds, solved, reached = [], None, []
    for _ in range(arguments.updates // 500):
        block = time.perf_counter()
        model.learn(500, reset_num_timesteps=False)
        speeds.append(500 / (time.perf_counter() - block))
        reached.append(success(model, BitFlipping if arguments.algorithm == "dqn" else PointReach))
        if solved is None and reached[-1] >= arguments.goal:
            solved = time.perf_counter() - begun
    print(json.dumps({"updates_per_second": speeds, "seconds_to_solve": solved, "success": reached}))


if __name__ == "__main__":
    main()
