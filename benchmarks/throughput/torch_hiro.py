"""Plain PyTorch reference for training HIRO on the point in a maze.

The algorithm and the sizes are those of jaxrl_hier.hierarchical.hiro without scaled inputs: TD3 on two levels, goals
that stand for one place for c steps, a memory of steps for the worker and one of segments for the manager, and the
correction with ten candidates, all scored in one call. Environments are stepped together, with one forward pass of each
level's actor per step; the manager's runs where one of its goals is due. The two critics of a level are one batched
product, which took less time than two networks.

Prints one JSON line with the environment steps per second of each timed block; the first is a warm-up.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from itertools import pairwise

import torch
from torch import Tensor, nn

WALLS = torch.tensor(  # low and high corners
    [
        [[-12, -12], [28, -4]],
        [[-12, -4], [-4, 4]],
        [[20, -4], [28, 4]],
        [[-12, 4], [12, 12]],
        [[20, 4], [28, 12]],
        [[-12, 12], [-4, 20]],
        [[20, 12], [28, 20]],
        [[-12, 20], [28, 28]],
    ]
).float()
LIMIT, HALF, SLACK, INFINITE = 500, 0.5, 1e-3, torch.tensor(math.inf)
REACH, SCALE, GAMMA_W, GAMMA_M, TAU, NOISE, RANDOM_GOALS = 5.0, 0.1, 0.95, 0.99, 0.02, 0.1, 0.2


class Maze:
    """Environments side by side; an episode that ends is followed by another."""

    def __init__(self, count: int):
        self.position, self.velocity, self.target = (torch.zeros(count, 2) for _ in range(3))
        self.age = torch.full((count,), LIMIT)
        self.reset()

    def reset(self) -> None:
        over = (self.age >= LIMIT)[:, None]
        self.position = torch.where(over, torch.rand_like(self.position) * 0.2 - 0.1, self.position)
        self.target = torch.where(over, torch.rand_like(self.target) * 24 - 4, self.target)
        self.velocity = self.velocity * ~over
        self.age = self.age * ~over[:, 0]

    def observe(self) -> Tensor:
        return torch.cat([self.position, self.velocity, self.target], 1)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Reward, and the observations of where the step leads to."""
        self.velocity = self.velocity + (0.25 * action.clamp(-1, 1) - self.velocity) / 4
        low, high = WALLS[:, 0] - HALF, WALLS[:, 1] + HALF
        for axis in (0, 1):
            here, across = self.position[:, axis, None], self.position[:, 1 - axis, None]
            level = (across > low[:, 1 - axis] + SLACK) & (across < high[:, 1 - axis] - SLACK)
            above = torch.where(level & (low[:, axis] >= here - SLACK), low[:, axis], INFINITE).amin(1)
            below = torch.where(level & (high[:, axis] <= here + SLACK), high[:, axis], -INFINITE).amax(1)
            wanted = self.position[:, axis] + self.velocity[:, axis]
            reached = wanted.clamp(below, above)
            self.position, self.velocity = self.position.clone(), self.velocity.clone()
            self.position[:, axis] = reached
            self.velocity[:, axis] *= (reached - wanted).abs() <= 1e-5
        self.age = self.age + 1
        return -(self.position - self.target).norm(dim=1), self.observe()


class Critics(nn.Module):
    """Two critics as one batched network."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        sizes = [inputs, hidden, hidden, 1]
        matrix = lambda a, b: torch.stack([nn.init.xavier_uniform_(torch.empty(a, b)) for _ in range(2)])
        self.weights = nn.ParameterList([matrix(a, b) for a, b in pairwise(sizes)])
        self.biases = nn.ParameterList([torch.zeros(2, 1, size) for size in sizes[1:]])

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([x, action], 1).expand(2, -1, -1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(bias, x, weight)
            x = x.relu() if i < 2 else x
        return x[..., 0]


class TD3:
    def __init__(self, inputs: int, hidden: int, gamma: float):
        self.actor, self.critics = self.networks(inputs, hidden)
        self.slow_actor, self.slow_critics = self.networks(inputs, hidden)
        self.slow_actor.load_state_dict(self.actor.state_dict())
        self.slow_critics.load_state_dict(self.critics.state_dict())
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=1e-3)
        self.pairs = [
            [[*slow.parameters()], [*fast.parameters()]]
            for slow, fast in ((self.slow_actor, self.actor), (self.slow_critics, self.critics))
        ]
        self.gamma, self.count = gamma, 0

    @staticmethod
    def networks(inputs: int, hidden: int) -> tuple[nn.Sequential, Critics]:
        layers = [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2)]
        return nn.Sequential(*layers, nn.Tanh()), Critics(inputs + 2, hidden)

    def update(self, x: Tensor, action: Tensor, reward: Tensor, x_next: Tensor) -> None:
        """No step of the maze is an end."""
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(action)).clamp(-0.5, 0.5)
            following = (self.slow_actor(x_next) + noise).clamp(-1, 1)
            y = reward + self.gamma * self.slow_critics(x_next, following).amin(0)
        loss = (self.critics(x, action) - y).square().mean(1).sum()
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        self.count += 1
        if self.count % 2:
            return
        loss = -self.critics(x, self.actor(x))[0].mean()
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()
        with torch.no_grad():
            for slow, fast in self.pairs:
                torch._foreach_lerp_(slow, fast, TAU)


class Memory:
    """A ring of rows, each a list of arrays."""

    def __init__(self, capacity: int):
        self.capacity, self.size, self.slot = capacity, 0, 0
        self.arrays: list[Tensor] = []

    def add(self, *rows: Tensor) -> None:
        if not self.arrays:
            self.arrays = [torch.zeros(self.capacity, *x.shape[1:]) for x in rows]
        slots = (self.slot + torch.arange(len(rows[0]))) % self.capacity
        for array, x in zip(self.arrays, rows):
            array[slots] = x
        self.slot = (self.slot + len(slots)) % self.capacity
        self.size = min(self.size + len(slots), self.capacity)

    def draw(self, count: int) -> list[Tensor]:
        at = torch.randint(self.size, (count,))
        return [x[at] for x in self.arrays]


class Trainer:
    def __init__(self, args: argparse.Namespace):
        self.args, B = args, args.environments
        self.maze = Maze(B)
        self.worker, self.manager = TD3(4, args.hidden, GAMMA_W), TD3(6, args.hidden, GAMMA_M)
        self.steps, self.segments = Memory(args.capacity), Memory(args.capacity // args.horizon)
        self.goal = torch.zeros(B, 2)
        self.under_way: list[tuple[Tensor, ...]] = []  # the steps of the segment so far
        for _ in range(args.warmup // (B * args.horizon)):
            self.collect(args.horizon, random=True)

    @staticmethod
    def worker_inputs(obs: Tensor, goal: Tensor) -> Tensor:
        return torch.cat([obs[..., 2:4], goal / REACH], -1)

    @torch.no_grad()
    def collect(self, length: int, random: bool = False) -> None:
        c, maze = self.args.horizon, self.maze
        for _ in range(length):
            obs = maze.observe()
            if not self.under_way:  # all environments begin together, and their episodes are whole segments
                wanted = self.manager.actor(obs)
                wanted = (wanted + NOISE * torch.randn_like(wanted)).clamp(-1, 1)
                uniform = torch.rand_like(wanted) * 2 - 1
                self.goal = REACH * torch.where(torch.rand(len(obs), 1) < RANDOM_GOALS, uniform, wanted)
            action = self.worker.actor(self.worker_inputs(obs, self.goal))
            action = (action + NOISE * torch.randn_like(action)).clamp(-1, 1)
            if random:
                action = torch.rand_like(action) * 2 - 1
            reward, after = maze.step(action)
            following = obs[:, :2] + self.goal - after[:, :2]
            inner = -following.norm(dim=1)
            here, there = self.worker_inputs(obs, self.goal), self.worker_inputs(after, following)
            self.steps.add(here, action, inner, there)
            self.under_way.append((obs, action, reward, self.goal, after))
            self.goal = following
            if len(self.under_way) == c:
                observed, actions, rewards, goals, ends = (torch.stack(x, 1) for x in zip(*self.under_way))
                self.segments.add(observed, actions, SCALE * rewards.sum(1), goals[:, 0], ends[:, -1])
                self.under_way = []
            maze.reset()

    @torch.no_grad()
    def corrected(self, obs: Tensor, actions: Tensor, goal: Tensor, end: Tensor) -> Tensor:
        s = obs[..., :2]
        change = end[:, :2] - s[:, 0]
        drawn = change[:, None] + 0.5 * REACH * torch.randn(len(s), 8, 2)
        candidates = torch.cat([goal[:, None], change[:, None], drawn], 1).clamp(-REACH, REACH)
        goals = (s[:, :1] + candidates)[:, :, None] - s[:, None]
        states = obs[:, None].expand(-1, 10, -1, -1)
        score = (actions[:, None] - self.worker.actor(self.worker_inputs(states, goals))).square().sum((2, 3))
        best = score.argmin(1)
        return candidates[torch.arange(len(best)), best]

    def iterate(self) -> None:
        self.collect(self.args.length)
        for _ in range(self.args.manager_updates):
            for _ in range(self.args.worker_update_ratio):
                x, action, inner, x_next = self.steps.draw(self.args.batch_size)
                self.worker.update(x, action, inner, x_next)
            obs, actions, reward, goal, end = self.segments.draw(self.args.batch_size)
            goal = self.corrected(obs, actions, goal, end)
            self.manager.update(obs[:, 0], goal / REACH, reward, end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"environments": 10, "length": 10, "horizon": 10, "hidden": 64, "batch_size": 64}
    sizes |= {"manager_updates": 25, "worker_update_ratio": 2, "capacity": 200_000, "warmup": 5_000, "iterations": 10}
    for name, default in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--blocks", type=int, default=3, help="timed, after one warm-up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    trainer, speeds = Trainer(args), []
    steps = args.iterations * args.environments * args.length
    for _ in range(args.blocks + 1):
        begun = time.perf_counter()
        for _ in range(args.iterations):
            trainer.iterate()
        speeds.append(steps / (time.perf_counter() - begun))
    print(json.dumps({"torch": torch.__version__, "steps_per_second": speeds[1:], "steps": steps}))


if __name__ == "__main__":
    main()
