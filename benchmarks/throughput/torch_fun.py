"""Plain PyTorch reference for training FuN on rooms with keys, doors and a treasure.

The algorithm and the sizes are those of jaxrl_hier.hierarchical.fun: a layer of ReLU on the vector of the rooms, a
manager whose dilated LSTM has r cores, a worker with an LSTM and a linear embedding of goals, the cosine loss of pairs
(t, t + c), inner rewards, two values, one Adam step per rollout, and the last c steps kept for the next update.

All environments are stepped together, with one forward pass per step and one backward pass per rollout. The cores of
the dilated LSTM are unrolled side by side, and perception, heads and losses are computed for a whole window at once.

Prints one JSON line with the environment steps per second of each timed block; the first is a warm-up.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOMS = (
    "wwwwwwwwwww",
    "w    w    w",
    "w S  D    w",
    "w    w   Tw",
    "w    w    w",
    "ww wwwwwwww",
    "w    w    w",
    "w         w",
    "w    w    w",
    "w    w   Kw",
    "wwwwwwwwwww",
)
CELLS = [(r, c) for r, line in enumerate(ROOMS) for c, char in enumerate(line) if char != "w"]
LIMIT, ACTIONS, SIZE = 200, 4, len(CELLS) + 2
ALPHA, EPSILON, GAMMA_W, GAMMA_M, ENTROPY, CRITIC = 0.1, 0.05, 0.95, 0.99, 0.03, 0.5


class Rooms:
    """Environments side by side; an episode that ends is followed by another."""

    def __init__(self, count: int):
        number = {cell: i for i, cell in enumerate(CELLS)}
        moves = ((-1, 0), (1, 0), (0, -1), (0, 1))
        self.moved = torch.tensor(
            [[number.get((r + dr, c + dc), i) for dr, dc in moves] for i, (r, c) in enumerate(CELLS)]
        )
        place = {ROOMS[r][c]: i for (r, c), i in number.items()}
        self.start, self.key, self.door, self.treasure = (place[letter] for letter in "SKDT")
        self.cell = torch.full((count,), self.start)
        self.taken, self.opened = (torch.zeros(count, dtype=torch.bool) for _ in range(2))
        self.age = torch.zeros(count, dtype=torch.long)

    def observe(self) -> Tensor:
        return torch.cat([F.one_hot(self.cell, len(CELLS)), self.taken[:, None], self.opened[:, None]], 1).float()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reward, and whether the treasure or the time limit is reached."""
        ahead = self.moved[self.cell, action]
        shut = (ahead == self.door) & ~self.opened
        opens = shut & self.taken
        self.cell = torch.where(shut & ~opens, self.cell, ahead)
        takes = (self.cell == self.key) & ~self.taken
        self.taken, self.opened = self.taken | takes, self.opened | opens
        found = self.cell == self.treasure
        self.age += 1
        late = (self.age >= LIMIT) & ~found
        over = found | late
        self.cell = torch.where(over, self.start, self.cell)
        self.taken, self.opened = self.taken & ~over, self.opened & ~over
        self.age = torch.where(over, 0, self.age)
        return takes.float() + opens.float() + found.float(), found, late


class LSTM(nn.Module):
    """One step; the gates are i, f, g, o as everywhere. Unrolls take the product with all inputs at once."""

    def __init__(self, features: int, size: int):
        super().__init__()
        self.size, self.inputs = size, nn.Linear(features, 4 * size)
        self.recurrent = nn.Parameter(torch.cat([nn.init.orthogonal_(torch.empty(size, size)) for _ in range(4)], 1))

    def cell(self, c: Tensor, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = torch.addmm(z, h, self.recurrent).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return c, o.sigmoid() * c.tanh()

    def unroll(self, c: Tensor, h: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        """h of all steps [T, N, H]; keep [T, N]: 0 where the memory begins anew."""
        out = []
        for z, k in zip(self.inputs(x), keep[..., None]):
            c, h = self.cell(c * k, h * k, z)
            out.append(h)
        return torch.stack(out)


def unit(x: Tensor) -> Tensor:
    return x * x.square().sum(-1, keepdim=True).clamp_min(1e-12).rsqrt()


def cosine(x: Tensor, y: Tensor) -> Tensor:
    return (unit(x) * unit(y)).sum(-1)


def zero_head(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class FuN(nn.Module):
    def __init__(self, args: argparse.Namespace):
        super().__init__()
        self.k = args.embedding
        self.percept, self.space = nn.Linear(SIZE, args.hidden), nn.Linear(args.hidden, args.space)
        self.manager, self.worker = LSTM(args.space, args.space), LSTM(args.hidden, args.worker)
        self.manager_value, self.worker_value = zero_head(args.space, 1), zero_head(args.worker, 1)
        self.policy = zero_head(args.worker, ACTIONS * self.k)
        self.embedding = nn.Parameter(torch.randn(args.space, self.k) / math.sqrt(args.space))

    def perceive(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        z = self.percept(obs).relu()
        return z, self.space(z).relu()

    def logits(self, u: Tensor, goals: Tensor) -> Tensor:
        rows = self.policy(u).unflatten(-1, (ACTIONS, self.k))
        return (rows @ (goals @ self.embedding)[..., None]).squeeze(-1)


class Trainer:
    def __init__(self, args: argparse.Namespace):
        self.args, B, c, r, d = args, args.environments, args.horizon, args.horizon, args.space
        self.rooms, self.net = Rooms(B), FuN(args)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=2e-3, eps=1e-5)
        # memory of the agents: cores and goals of the last steps, oldest first
        self.cores = [torch.zeros(r, B, d) for _ in range(2)]
        self.goals = torch.zeros(c, B, d)
        self.state = torch.zeros(B, args.worker), torch.zeros(B, args.worker)
        self.waiting = (self.remember(), self.collect(c))

    def remember(self) -> tuple[Tensor, list[Tensor], Tensor, tuple[Tensor, Tensor]]:
        return self.rooms.age.clone(), [x.clone() for x in self.cores], self.goals.clone(), self.state

    @torch.no_grad()
    def collect(self, length: int) -> list[Tensor]:
        net, steps = self.net, []
        for _ in range(length):
            obs, first = self.rooms.observe(), self.rooms.age == 0
            z, s = net.perceive(obs)
            core = net.manager.cell(self.cores[0][0], self.cores[1][0], net.manager.inputs(s))
            self.cores = [torch.cat([x[1:], new[None]]) for x, new in zip(self.cores, core)]
            random = torch.rand(len(obs), 1) < EPSILON
            goal = unit(torch.where(random, torch.randn_like(s), self.cores[1].sum(0)))
            self.state = net.worker.cell(*self.state, net.worker.inputs(z))
            probabilities = net.logits(self.state[1], self.goals.sum(0) + goal).softmax(-1)
            self.goals = torch.cat([self.goals[1:], goal[None]])
            action = torch.multinomial(probabilities, 1).squeeze(-1)
            reward, found, late = self.rooms.step(action)
            going_on = (~(found | late)).float()[:, None]
            self.cores = [x * going_on for x in self.cores]
            self.goals = self.goals * going_on
            self.state = self.state[0] * going_on, self.state[1] * going_on
            steps.append((obs, first, action, reward, found, late, goal))
        return [torch.stack(x) for x in zip(*steps)]

    @staticmethod
    def back(before: Tensor, x: Tensor, age: Tensor, i: int) -> Tensor:
        """x_{t−i}, zero where that step belongs to an earlier episode."""
        everything = torch.cat([before, x])
        begin = len(before) - i
        return everything[begin : begin + len(x)] * (age >= i)[..., None]

    @staticmethod
    def advantage(reward: Tensor, value: Tensor, found: Tensor, late: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
        cut = late.clone()
        cut[-1] |= ~found[-1]
        following = torch.cat([value[1:], value[-1:]])
        error = (reward + gamma * following * ~found - value) * ~cut
        going_on, out, ahead = gamma * (~(found | cut)).float(), [], torch.zeros_like(value[0])
        for e, g in zip(reversed(error.unbind()), reversed(going_on.unbind())):
            ahead = e + g * ahead
            out.append(ahead)
        return torch.stack(out[::-1]), (~cut).float()

    def update(self) -> float:
        net, c, r = self.net, self.args.horizon, self.args.horizon
        here = self.remember()
        new = self.collect(self.args.length - c)
        between = self.remember()
        late_steps = self.collect(c)
        (age0, cores, goals0, _), old = self.waiting
        self.waiting = (between, late_steps)
        obs, first, action, reward, found, late, goal = (torch.cat(x) for x in zip(old, new, late_steps))
        W, B = first.shape
        t = torch.arange(W)[:, None]
        age = t - torch.where(first, t, -age0).cummax(0).values

        z, s = net.perceive(obs)
        fold = lambda x: x.reshape(W // r, r * B, *x.shape[2:])
        c0, h0 = (x.reshape(r * B, -1) for x in cores)
        h = net.manager.unroll(c0, h0, fold(s), fold(age >= r).float()).view(W, B, -1)
        output = h
        for i in range(1, r):
            output = output + self.back(cores[1], h, age, i)
        manager_value = net.manager_value(output).squeeze(-1)
        u = net.worker.unroll(*here[3], z[c:], (~first[c:]).float())
        total = goal
        for i in range(1, c + 1):
            total = total + self.back(goals0, goal, age, i)
        log_policy = net.logits(u, total[c:]).log_softmax(-1)
        worker_value = net.worker_value(u).squeeze(-1)

        with torch.no_grad():
            A_m, weight_m = self.advantage(reward, manager_value, found, late, GAMMA_M)
            target_m = A_m + manager_value
            towards, together = s[c:] - s[:-c], (age[c:] >= c).float()
            nothing, inner = torch.zeros_like(goals0), torch.zeros(W, B)
            for i in range(1, c + 1):
                inner += cosine(s - self.back(nothing, s, age, i), self.back(nothing, goal, age, i)) / c
            arriving = torch.cat([inner[c + 1 :], inner[-1:]]) * ~(found | late)[c:]
            A_w, weight_w = self.advantage(reward[c:] + ALPHA * arriving, worker_value, found[c:], late[c:], GAMMA_W)
            target_w = A_w + worker_value
        manager = -(A_m[:-c] * cosine(towards, output[:-c]) * weight_m[:-c] * together).mean()
        worker = -(log_policy.gather(-1, action[c:, :, None]).squeeze(-1) * A_w * weight_w).mean()
        critic = 0.5 * ((target_m - manager_value)[:-c].square() * weight_m[:-c]).mean()
        critic = critic + 0.5 * ((target_w - worker_value).square() * weight_w).mean()
        entropy = -(log_policy.exp() * log_policy).sum(-1).mean()
        self.optimizer.zero_grad()
        (manager + worker + CRITIC * critic - ENTROPY * entropy).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        self.optimizer.step()
        return float(reward[c:].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"environments": 32, "length": 40, "horizon": 10, "hidden": 64, "space": 64, "worker": 64, "embedding": 16}
    for name, default in {**sizes, "iterations": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--blocks", type=int, default=3, help="timed, after one warm-up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    trainer = Trainer(args)
    speeds, paid = [], 0.0
    for _ in range(args.blocks + 1):
        begun = time.perf_counter()
        paid = sum(trainer.update() for _ in range(args.iterations))
        steps = args.iterations * args.environments * args.length
        speeds.append(steps / (time.perf_counter() - begun))
    print(json.dumps({"torch": torch.__version__, "steps_per_second": speeds[1:], "reward": paid, "steps": steps}))


if __name__ == "__main__":
    main()
