"""Plain PyTorch reference for training an option-critic on four rooms.

The algorithm and the sizes are those of jaxrl_hier.hierarchical.option_critic: one-hot cells, a tanh torso of 64-64,
heads for 4 option values, 4 softmax policies and 4 sigmoid terminations, λ-returns with U(s', o), one Adam step per
rollout, and the option-critic code's dynamics (a move that succeeds is followed with probability 1/3 by one to a random
free neighbour; a time limit of 1000 steps).

``--mode batched``: a vectorised environment, all environments in one forward pass per step, one backward pass per
rollout. ``--mode single``: what public implementations do, one environment, a forward pass and an update per step.

Prints one JSON line with the environment steps per second of each timed block; the first is a warm-up.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOMS = (
    "wwwwwwwwwwwww",
    "w     w     w",
    "w     w     w",
    "w           w",
    "w     w     w",
    "w     w     w",
    "ww wwww     w",
    "w     www www",
    "w     w     w",
    "w     w     w",
    "w           w",
    "w     w     w",
    "wwwwwwwwwwwww",
)
CELLS = [(r, c) for r, line in enumerate(ROOMS) for c, char in enumerate(line) if char == " "]
GOAL, LIMIT, ACTIONS = CELLS.index((7, 9)), 1000, 4
DISCOUNT, TRACE, EPSILON, COST, ENTROPY, CRITIC, SCALE = 0.99, 0.95, 0.1, 0.03, 0.01, 0.5, 30.0


def tables() -> tuple[Tensor, Tensor, Tensor]:
    """Where each move leads [104, 4], the free neighbours of each cell [104, 4] and how many there are [104]."""
    number = {cell: i for i, cell in enumerate(CELLS)}
    moved = [
        [number.get((r + dr, c + dc), i) for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1))]
        for i, (r, c) in enumerate(CELLS)
    ]
    free = [[n for n in row if n != i] for i, row in enumerate(moved)]
    padded = [(row * 4)[:4] for row in free]
    return torch.tensor(moved), torch.tensor(padded), torch.tensor([len(row) for row in free])


class Rooms:
    """Environments side by side; an episode that ends is followed by another."""

    def __init__(self, count: int):
        self.moved, self.free, self.degree = tables()
        self.time = torch.zeros(count, dtype=torch.long)
        self.cell = self.starts(count)

    def starts(self, count: int) -> Tensor:
        cell = torch.randint(len(CELLS) - 1, (count,))
        return cell + (cell >= GOAL)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The true successors, and whether the goal or the time limit is reached."""
        entered = self.moved[self.cell, action]
        draws = torch.rand(2, len(entered))
        slipped = self.free[entered, (draws[1] * self.degree[entered]).long()]
        after = torch.where((entered != self.cell) & (draws[0] < 1 / 3), slipped, entered)
        self.time += 1
        goal = after == GOAL
        late = (self.time >= LIMIT) & ~goal
        over = goal | late
        self.cell = torch.where(over, self.starts(len(after)), after)
        self.time = torch.where(over, 0, self.time)
        return after, goal, late


class Network(nn.Module):
    def __init__(self, hidden: int, options: int):
        super().__init__()
        self.options = options
        self.torso = nn.Sequential(nn.Linear(len(CELLS), hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.heads = nn.Linear(hidden, options * (ACTIONS + 2))  # one product instead of three
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    def forward(self, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.heads(self.torso(F.one_hot(cell, len(CELLS)).float()))
        q, stop, logits = x.split([self.options, self.options, self.options * ACTIONS], -1)
        return q * SCALE, stop, logits.unflatten(-1, (self.options, ACTIONS))


def at(x: Tensor, option: Tensor) -> Tensor:
    return x.gather(-1, option.unsqueeze(-1)).squeeze(-1)


def choice_value(q: Tensor) -> Tensor:
    return (1 - EPSILON) * q.amax(-1) + EPSILON * q.mean(-1)


class Trainer:
    def __init__(self, args: argparse.Namespace):
        self.count = 1 if args.mode == "single" else args.environments
        self.length = 1 if args.mode == "single" else args.length
        self.rooms, self.network = Rooms(self.count), Network(args.hidden, args.options)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, eps=1e-5)
        self.option = torch.zeros(self.count, dtype=torch.long)
        self.first = torch.ones(self.count, dtype=torch.bool)

    @torch.no_grad()
    def collect(self) -> list[Tensor]:
        steps = []
        for _ in range(self.length):
            cell, previous, first = self.rooms.cell, self.option, self.first
            q, stop, logits = self.network(cell)
            draws = torch.rand(2, self.count)
            chosen = first | (draws[0] < torch.sigmoid(at(stop, previous)))
            fresh = torch.where(draws[1] < EPSILON, torch.randint(self.network.options, (self.count,)), q.argmax(-1))
            self.option = torch.where(chosen, fresh, previous)
            policy = logits[torch.arange(self.count), self.option].softmax(-1)
            action = torch.multinomial(policy, 1).squeeze(-1)
            after, goal, late = self.rooms.step(action)
            self.first = goal | late
            steps.append((cell, action, after, goal, late, first, self.option, previous))
        return [torch.stack(x) for x in zip(*steps)]

    def update(self, batch: list[Tensor]) -> None:
        cell, action, after, goal, late, first, option, previous = batch
        q, stop, logits = self.network(cell)
        with torch.no_grad():
            next_q, next_stop, _ = self.network(after)
            beta = torch.sigmoid(at(next_stop, option))
            u = (1 - beta) * at(next_q, option) + beta * choice_value(next_q)
            error = goal.float() + DISCOUNT * torch.where(goal, 0.0, u) - at(q, option)
            going_on = DISCOUNT * TRACE * (~(goal | late)).float()
            advantage = torch.empty_like(error)
            following = torch.zeros(self.count)
            for t in reversed(range(self.length)):
                following = error[t] + going_on[t] * following
                advantage[t] = following
            target = advantage + at(q, option)
            gain = at(q, previous) - choice_value(q) + COST
        index = option[..., None, None].expand(*option.shape, 1, ACTIONS)
        log_policy = logits.gather(-2, index).squeeze(-2).log_softmax(-1)
        critic = 0.5 * (target - at(q, option)).square().mean()
        policy = -(at(log_policy, action) * advantage).mean()
        termination = (torch.sigmoid(at(stop, previous)) * gain * ~first).mean()
        entropy = -(log_policy.exp() * log_policy).sum(-1).mean()
        self.optimizer.zero_grad()
        (policy + CRITIC * critic + termination - ENTROPY * entropy).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 0.5)
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=("batched", "single"), default="batched")
    for name, default in (("environments", 32), ("length", 16), ("hidden", 64), ("options", 4), ("iterations", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--blocks", type=int, default=3, help="timed, after one warm-up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    trainer = Trainer(args)
    speeds, goals = [], 0
    for _ in range(args.blocks + 1):
        begun, goals = time.perf_counter(), 0
        for _ in range(args.iterations):
            batch = trainer.collect()
            trainer.update(batch)
            goals += int(batch[3].sum())
        steps = args.iterations * trainer.count * trainer.length
        speeds.append(steps / (time.perf_counter() - begun))
    print(json.dumps({"torch": torch.__version__, "steps_per_second": speeds[1:], "goals": goals, "steps": steps}))


if __name__ == "__main__":
    main()
