"""Plain PyTorch reference for PEARL's gradient steps, for `benchmarks.throughput.pearl`, which runs this file.

The losses, networks and sizes are those of jaxrl_hier.meta.pearl: soft actor-critic with a value network, two critics,
a product of Gaussians over the steps of a context, and the divergence from the prior. Experience is made up, of the
point robot's shapes: M tasks with a memory each, from which every step draws contexts and batches.

All tasks go through a network at once, the two critics are one batched product, and a step is one backward pass and one
step of an optimiser that holds all parameters.

Prints one JSON line with the gradient steps per second of each timed block; the first is a warm-up.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OBS, ACTION, LATENT, STORED, TASKS = 2, 2, 5, 1000, 80
GAMMA, TAU, SCALE, KL, REGULARIZATION = 0.9, 0.005, 100.0, 1.0, 1e-3


def mlp(inputs: int, hidden: list[int], outputs: int) -> nn.Sequential:
    sizes = [inputs, *hidden, outputs]
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(a, b)] + ([nn.ReLU()] if i + 2 < len(sizes) else [])
    return nn.Sequential(*layers)


class Critics(nn.Module):
    """Two networks of one shape side by side."""

    def __init__(self, inputs: int, hidden: list[int]):
        super().__init__()
        sizes = [inputs, *hidden, 1]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for a, b in pairwise(sizes):
            bound = math.sqrt(6 / (a + b))
            self.weights.append(nn.Parameter(torch.empty(2, a, b).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.zeros(2, 1, b)))

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(2, *x.shape)
        for i, (w, b) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(b, x, w)
            x = x if i + 1 == len(self.weights) else x.relu()
        return SCALE * x[..., 0]


class PEARL:
    def __init__(self, args: argparse.Namespace):
        self.args = args
        hidden, layers = [args.hidden] * 3, [args.encoder_hidden] * 3
        self.actor, self.critics = mlp(OBS + LATENT, hidden, 2 * ACTION), Critics(OBS + LATENT + ACTION, hidden)
        self.value, self.slow = (mlp(OBS + LATENT, hidden, 1) for _ in range(2))
        self.slow.load_state_dict(self.value.state_dict())
        self.encoder = mlp(OBS + ACTION + 1, layers, 2 * LATENT)
        learned = (self.actor, self.critics, self.value, self.encoder)
        self.optimizer = torch.optim.Adam([p for m in learned for p in m.parameters()], lr=3e-4, foreach=True)
        self.obs, self.next_obs = torch.randn(2, TASKS, STORED, OBS)
        self.action = torch.rand(TASKS, STORED, ACTION) * 2 - 1
        self.reward, self.sparse = -torch.rand(2, TASKS, STORED)
        self.context = torch.cat([self.obs, self.action, self.sparse[..., None]], -1)

    def act(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, log_std = self.actor(inputs).chunk(2, -1)
        log_std = log_std.clamp(-5, 2)
        noise = torch.randn_like(mean)
        u = mean + log_std.exp() * noise
        log_prob = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - u - F.softplus(-2 * u))
        return u.tanh(), log_prob.sum(-1), mean, log_std

    def step(self) -> None:
        m, b, n = self.args.meta_batch_size, self.args.batch_size, self.args.context_size
        task = torch.randperm(TASKS)[:m, None]
        shown = self.context[task, torch.randint(STORED, (m, n))]
        slots = torch.randint(STORED, (m, b))
        rows = lambda x: x[task, slots].flatten(0, 1)
        obs, action, reward, next_obs = map(rows, (self.obs, self.action, self.reward, self.next_obs))

        mean, raw = self.encoder(shown).chunk(2, -1)
        precision = 1 / F.softplus(raw).clamp_min(1e-7)
        variance = 1 / precision.sum(1)
        mean = variance * (precision * mean).sum(1)
        z = mean + variance.sqrt() * torch.randn_like(mean)
        told = 0.5 * (variance + mean**2 - 1 - variance.log()).sum()

        z = z.repeat_interleave(b, 0)
        now = torch.cat([obs, z.detach()], -1)
        drawn, log_prob, policy_mean, log_std = self.act(now)
        with torch.no_grad():
            y = SCALE * reward + GAMMA * SCALE * self.slow(torch.cat([next_obs, z], -1))[:, 0]
        q = self.critics(torch.cat([obs, z, action], -1))
        for parameter in self.critics.parameters():
            parameter.requires_grad_(False)
        judged = self.critics(torch.cat([now, drawn], -1)).min(0).values - log_prob
        for parameter in self.critics.parameters():
            parameter.requires_grad_(True)
        value = SCALE * self.value(now)[:, 0]
        spread = (policy_mean**2).mean() + (log_std**2).mean()
        loss = ((q - y) ** 2).mean(1).sum() + KL * told + ((value - judged.detach()) ** 2).mean()
        loss = loss - judged.mean() + REGULARIZATION * spread
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.slow.parameters()), list(self.value.parameters()), TAU)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in {
        "meta_batch_size": 16,
        "batch_size": 256,
        "context_size": 1024,
        "hidden": 300,
        "encoder_hidden": 200,
    }.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    learner, speeds = PEARL(args), []
    for _ in range(args.blocks + 1):
        begun = time.perf_counter()
        for _ in range(args.steps):
            learner.step()
        speeds.append(args.steps / (time.perf_counter() - begun))
    print(json.dumps({"steps_per_second": speeds[1:]}))


if __name__ == "__main__":
    main()
