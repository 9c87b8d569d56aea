"""Plain PyTorch reference for one MAML-TRPO meta-iteration on 2-D navigation.

The experiment is that of Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast
Adaptation of Deep Networks" (ICML 2017), section 5.3; the program exists to be timed against
other implementations of the same work:

* environment: start (0, 0), goal ~ U[-.5, .5]^2 per task, actions clipped to [-1, 1]^2 and
  scaled by .1, reward -||state - goal|| after the move, episode over once both coordinates are
  within .01 of the goal, horizon 100;
* 20 tasks x 20 trajectories before and again after adaptation (80 000 environment steps);
* policy: Gaussian, MLP 2-100-100-2 with ReLU and a state-independent log_std (initially 0);
* advantages: linear feature baseline fitted per task (ridge 1e-5), gamma .99, GAE lambda 1,
  centred and normalised per task;
* inner update: one policy-gradient step of rate .5 on all parameters, differentiated through
  unless ``--first-order``;
* outer update: TRPO (KL <= .01, 10 conjugate-gradient iterations with damping 1e-5, at most
  15 backtracking steps of .8), or one Adam step with ``--outer adam``.

``--mode loop`` handles one task after another, as public PyTorch implementations do;
``--mode batched`` gives the parameters a leading task axis and handles all tasks at once. Both
run the same code on "chunks" of tasks, and keep one graph of the inner update for the rollouts,
the gradient and all Fisher-vector products. With ``--fisher-trajectories``, Fisher-vector products
are evaluated on so many trajectories of each task: the KL is a mean over part of the second batch,
and the adapted parameters have their value, but the derivative of a step on part of the first.

The first meta-iteration is a warm-up, timed apart; ``--iterations`` more follow, and the lists in
the JSON line printed cover only those.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

LAYER_SIZES = (2, 100, 100, 2)
ACTION_SCALE = 0.1
GOAL_RANGE, GOAL_TOLERANCE = 0.5, 0.01
DISCOUNT, GAE_LAMBDA = 0.99, 1.0
BASELINE_RIDGE = 1e-5
INNER_RATE = 0.5
MAX_KL = 0.01
CG_ITERATIONS, CG_DAMPING = 10, 1e-5
BACKTRACK_RATIO, MAX_BACKTRACKS = 0.8, 15
ADAM_RATE = 1e-3

Params = list[Tensor]  # three layers' weights and biases in turn, then log_std
Dist = tuple[Tensor, Tensor]  # mean, log_std


@dataclass(frozen=True)
class Batch:
    """Steps of one chunk of tasks; `lead` is ``(tasks,)`` if batched, else ``()``."""

    observations: Tensor  # (*lead, steps, 2)
    actions: Tensor  # (*lead, steps, 2)
    advantages: Tensor  # (*lead, steps)
    mask: Tensor  # (*lead, steps), 1 up to and including the terminal step
    mean_return: Tensor  # (*lead,), undiscounted


Batches = list[Batch]  # one per chunk, like the next
Dists = list[Dist]


def init_params() -> Params:
    params: Params = []
    for fan_in, fan_out in pairwise(LAYER_SIZES):
        params.append(torch.nn.init.xavier_uniform_(torch.empty(fan_out, fan_in)))
        params.append(torch.zeros(fan_out))
    params.append(torch.zeros(LAYER_SIZES[-1]))
    return [p.requires_grad_() for p in params]


def affine(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.dim() == 2:
        return F.linear(inputs, weight, bias)
    return torch.baddbmm(bias.unsqueeze(1), inputs, weight.mT)


def policy(params: Params, observations: Tensor) -> Dist:
    w1, b1, w2, b2, w3, b3, log_std = params
    hidden = torch.relu(affine(observations, w1, b1))
    hidden = torch.relu(affine(hidden, w2, b2))
    return affine(hidden, w3, b3), log_std.unsqueeze(-2)


def log_prob(dist: Dist, actions: Tensor) -> Tensor:
    mean, log_std = dist
    scaled = (actions - mean) * torch.exp(-log_std)
    return -(0.5 * scaled.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


def kl_divergence(old: Dist, new: Dist) -> Tensor:
    (mean_old, log_std_old), (mean_new, log_std_new) = old, new
    spread = torch.exp(2 * log_std_old) + (mean_old - mean_new).square()
    scaled = spread * (0.5 * torch.exp(-2 * log_std_new))
    return (log_std_new - log_std_old + scaled - 0.5).sum(-1)


def task_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(-1) / mask.sum(-1)


def discounted_sums(values: Tensor, rate: float) -> Tensor:
    """Discounted sums to the end of time, axis -2, as one product with a Toeplitz matrix."""
    steps = torch.arange(values.shape[-2], device=values.device)
    lag = steps - steps.unsqueeze(1)
    weights = torch.where(lag >= 0, rate ** lag.clamp(min=0).to(values.dtype), 0.0)
    return weights @ values


def estimate_advantages(observations: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
    """Normalised GAE around the linear baseline; (*lead, time, trajectory) in and out."""
    horizon = rewards.shape[-2]
    # The normal equations are too badly conditioned for single precision.
    obs = observations.double().clamp(-10, 10)
    t = (torch.arange(horizon, dtype=obs.dtype) / 100).view(horizon, 1, 1)
    clock = torch.cat([t, t**2, t**3, t**0], -1).expand(*obs.shape[:-1], 4)
    rows = (torch.cat([obs, obs**2, clock], -1) * mask.unsqueeze(-1)).flatten(-3, -2)
    targets = (discounted_sums(rewards, DISCOUNT) * mask).double().flatten(-2).unsqueeze(-1)
    gram = rows.mT @ rows + BASELINE_RIDGE * torch.eye(rows.shape[-1], dtype=rows.dtype)
    weights = torch.linalg.solve(gram, rows.mT @ targets)
    # Masked features make the value of every state after termination zero.
    values = (rows @ weights).view(rewards.shape).to(rewards.dtype)
    next_values = F.pad(values[..., 1:, :], (0, 0, 0, 1))
    deltas = rewards + DISCOUNT * next_values - values
    advantages = discounted_sums(deltas, DISCOUNT * GAE_LAMBDA).flatten(-2)
    flat_mask = mask.flatten(-2)
    centred = advantages - task_mean(advantages, flat_mask).unsqueeze(-1)
    std = task_mean(centred.square(), flat_mask).sqrt().unsqueeze(-1)
    return centred / (std + 1e-8)


@torch.no_grad()
def rollout(params: Params, goals: Tensor, trajectories: int, horizon: int) -> Batch:
    """Sample every trajectory of a chunk at once; `params` may or may not have a task axis."""
    noise = torch.randn(horizon, *goals.shape[:-1], trajectories, 2)
    noise *= params[-1].exp().unsqueeze(-2)
    state = torch.zeros(*goals.shape[:-1], trajectories, 2)
    states, actions = [state], []
    for t in range(horizon):
        actions.append(policy(params, state)[0] + noise[t])
        state = torch.add(state, actions[-1].clamp(-1, 1), alpha=ACTION_SCALE)
        states.append(state)
    # The motion ignores termination, so rewards and masks need no place in the sequential loop.
    path = torch.stack(states, -3)
    observations = path[..., :-1, :, :]
    offset = path[..., 1:, :, :] - goals[..., None, None, :]
    done = (offset.abs() < GOAL_TOLERANCE).all(-1)
    mask = (done.cumsum(-2) == done).to(offset.dtype)  # zero after an earlier termination
    rewards = -torch.linalg.vector_norm(offset, dim=-1) * mask
    return Batch(
        observations.flatten(-3, -2),
        torch.stack(actions, -3).flatten(-3, -2),
        estimate_advantages(observations, rewards, mask),
        mask.flatten(-2),
        mean_return=rewards.sum(-2).mean(-1),
    )


def adapt(params: Params, batch: Batch, differentiable: bool) -> Params:
    """One inner gradient step; without `differentiable` its gradient counts as a constant."""
    # Expanding first gives each task its own gradient from a single backward pass.
    local = [p.expand(*batch.mean_return.shape, *p.shape) for p in params]
    log_probs = log_prob(policy(local, batch.observations), batch.actions)
    loss = -task_mean(log_probs * batch.advantages, batch.mask).sum()
    grads = torch.autograd.grad(loss, local, create_graph=differentiable)
    return [torch.sub(p, g, alpha=INNER_RATE) for p, g in zip(local, grads)]


def outer_objective(adapted: list[Params], batches: Batches, old: Dists | None) -> tuple[Tensor, Tensor, Dists]:
    """Surrogate and KL averaged over tasks; `old` defaults to the given policies, held fixed."""
    dists = [policy(params, batch.observations) for params, batch in zip(adapted, batches)]
    old = old or [(mean.detach(), log_std.detach()) for mean, log_std in dists]
    losses, kls = [], []
    for new, ref, batch in zip(dists, old, batches):
        ratio = torch.exp(log_prob(new, batch.actions) - log_prob(ref, batch.actions))
        losses.append(-task_mean(ratio * batch.advantages, batch.mask).mean())
        kls.append(task_mean(kl_divergence(ref, new), batch.mask).mean())
    return torch.stack(losses).mean(), torch.stack(kls).mean(), old


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def part_of(batch: Batch, trajectories: int, count: int) -> Batch:
    """The first `count` trajectories of each task."""
    time = batch.mask.shape[-1] // trajectories

    def take(x: Tensor, axis: int) -> Tensor:
        return x.unflatten(axis, (time, trajectories)).narrow(axis, 0, count).flatten(axis - 1, axis)

    return Batch(
        take(batch.observations, -2),
        take(batch.actions, -2),
        take(batch.advantages, -1),
        take(batch.mask, -1),
        batch.mean_return,
    )


def kl_of_part(params: Params, adapted: list[Params], pre: Batches, post: Batches, args: argparse.Namespace) -> Tensor:
    """The KL on part of each batch, at the adapted parameters, to be differentiated twice."""
    take = lambda batch: part_of(batch, args.trajectories, args.fisher_trajectories)
    points = []
    for batch, known in zip(pre, adapted):
        after = adapt(params, take(batch), not args.first_order)
        points.append([value.detach() + (x - x.detach()) for value, x in zip(known, after)])
    return outer_objective(points, [take(batch) for batch in post], None)[1]


def fisher_product(kl: Tensor, params: Params) -> Callable[[Tensor], Tensor]:
    """Damped product with the Hessian of `kl`, by double backward over one retained graph."""
    kl_grad = flatten(torch.autograd.grad(kl, params, create_graph=True))

    def product(vector: Tensor) -> Tensor:
        grads = torch.autograd.grad(kl_grad @ vector, params, retain_graph=True)
        return flatten(grads) + CG_DAMPING * vector

    return product


def conjugate_gradient(product: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    solution = torch.zeros_like(target)
    residual, direction, residual_sq = target.clone(), target.clone(), target @ target
    for _ in range(CG_ITERATIONS):
        image = product(direction)
        step = residual_sq / (direction @ image)
        solution += step * direction
        residual -= step * image
        previous_sq, residual_sq = residual_sq, residual @ residual
        direction = residual + (residual_sq / previous_sq) * direction
    return solution


def evaluate(params: Params, pre: Batches, post: Batches, old: Dists) -> tuple[float, float]:
    """Surrogate and KL at `params`, without a graph through the inner update."""
    adapted = [adapt(params, batch, differentiable=False) for batch in pre]
    with torch.no_grad():
        loss, kl, _ = outer_objective(adapted, post, old)
    return loss.item(), kl.item()


def trpo_step(params: Params, loss: Tensor, kl: Tensor, pre: Batches, post: Batches, old: Dists) -> None:
    """Update `params` in place, or leave them as they are if no step is accepted."""
    gradient = flatten(torch.autograd.grad(loss, params, retain_graph=True))
    product = fisher_product(kl, params)
    direction = conjugate_gradient(product, gradient)
    full_step = direction * torch.sqrt(2 * MAX_KL / (direction @ product(direction)))
    start, loss_before = flatten(params).detach(), loss.item()
    for i in range(MAX_BACKTRACKS):
        point = (start - BACKTRACK_RATIO**i * full_step).requires_grad_()
        parts = torch.split(point, [p.numel() for p in params])
        candidate = [part.view_as(p) for part, p in zip(parts, params)]
        new_loss, new_kl = evaluate(candidate, pre, post, old)
        if new_loss < loss_before and new_kl <= MAX_KL:
            for p, c in zip(params, candidate):
                p.detach().copy_(c.detach())
            return


def meta_iteration(
    params: Params, args: argparse.Namespace, optimizer: torch.optim.Optimizer
) -> tuple[Batches, Batches, Dists]:
    """Update `params`; returns both sets of rollouts and the adapted policies they came from."""
    goals = (2 * torch.rand(args.tasks, 2) - 1) * GOAL_RANGE
    chunks = [goals] if args.mode == "batched" else list(goals)
    size = (args.trajectories, args.horizon)
    pre = [rollout(params, chunk, *size) for chunk in chunks]
    adapted = [adapt(params, batch, not args.first_order) for batch in pre]
    post = [rollout(local, chunk, *size) for local, chunk in zip(adapted, chunks)]
    loss, kl, old = outer_objective(adapted, post, None)
    if args.outer == "trpo":
        if args.fisher_trajectories < args.trajectories:
            kl = kl_of_part(params, adapted, pre, post, args)
        trpo_step(params, loss, kl, pre, post, old)
    else:
        for p, grad in zip(params, torch.autograd.grad(loss, params)):
            p.grad = grad
        optimizer.step()
    return pre, post, old


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=("loop", "batched"), default="batched")
    parser.add_argument("--outer", choices=("trpo", "adam"), default="trpo")
    parser.add_argument("--first-order", action="store_true")
    for name, default in (("tasks", 20), ("trajectories", 20), ("horizon", 100), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--fisher-trajectories", type=int, help="of each task; default: all")
    parser.add_argument("--iterations", type=int, default=5, help="timed, after one warm-up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    args.fisher_trajectories = args.fisher_trajectories or args.trajectories
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    params = init_params()
    optimizer = torch.optim.Adam(params, lr=ADAM_RATE)
    seconds: list[float] = []
    log: dict[str, list[float]] = {"return_pre": [], "return_post": [], "kl": []}
    for _ in range(args.iterations + 1):
        begin = time.perf_counter()
        pre, post, old = meta_iteration(params, args, optimizer)
        seconds.append(time.perf_counter() - begin)
        # Outside the clock: Adam has no other use for the KL.
        log["kl"].append(evaluate(params, pre, post, old)[1])
        for name, batches in (("return_pre", pre), ("return_post", post)):
            log[name].append(statistics.fmean(b.mean_return.mean().item() for b in batches))
    report = vars(args) | {
        "torch": torch.__version__,
        "warmup_seconds": seconds[0],
        "seconds_per_iteration": seconds[1:],
        "median_seconds": statistics.median(seconds[1:]),
        "min_seconds": min(seconds[1:]),
    }
    print(json.dumps(report | {name: values[1:] for name, values in log.items()}))


if __name__ == "__main__":
    main()
