"""Bayes-optimal search for a hidden cell that pays, where moves are not random, as in VariBAD's grid navigation.

The goal g is one of n cells, each equally likely. An episode begins at the start and takes L steps; a step that ends in
the goal pays r_1, any other r_0 < r_1. A trial is E episodes. Until the goal is found all steps look the same, so that
a policy is a path, and the belief is uniform over the cells that it has not met. Once found, in step t of episode e =
0, 1, …, the best is to stay, and in each later episode to walk there on the shortest way, of d(g) steps, and stay. The
path gains

    (L − t + 1) (r_1 − r_0) + (E − 1 − e) (L − d(g) + 1) (r_1 − r_0)

over one that never meets g, and is worth the mean over goals. Of all paths that have met the same cells and are in one
cell at one time, only the best can be the beginning of a best one: paths grow step by step, and of each such group one
is kept. Those that could not become as good as a known path, even if they met a new cell in each step, are left out;
the known path is the best where only few are kept. No policy is better than the best path, since each step shows its
reward, also the last of an episode.
"""

from typing import Any

import numpy as np

from jaxrl_hier.checks import UsageError

BITS = 5  # of the number of a cell
KEPT = 2_000  # paths, in the search for a good one


def search_returns(
    moves: Any, goals: Any, start: int, limit: int, episodes: int, in_goal: float, elsewhere: float
) -> tuple[np.ndarray, float]:
    """The mean return of each episode of a trial under Bayes-optimal play, [E], and of play that knows the goal.

    Args:
        moves: [S, A] int, where each action leads; up to 32 cells, and each can be stayed in.
        goals: [n] int, the cells that may pay, without the start.
        limit: L, at least the distance of each goal.
        in_goal, elsewhere: r_1 and r_0.

    Raises:
        UsageError: too many cells, one twice, a goal beyond the limit, or rewards in the wrong order.
    """
    moves, goals = np.asarray(moves), np.asarray(goals)
    if len(moves) > 2**BITS or len(np.unique(goals)) < len(goals) or start in goals:
        raise UsageError(f"goals must be different ones of at most {2**BITS} cells, without the start {start}")
    steps = distances(moves, start)[goals]
    if in_goal <= elsewhere or (steps > limit).any():
        raise UsageError("the goal must pay more than other cells, and be within the steps of an episode")
    times = np.arange(1, limit + 1)
    gains = np.zeros((episodes, limit, len(goals), episodes))  # [e, t, g]: what each episode gains
    for e in range(episodes):
        gains[e, :, :, e] = (limit - times + 1)[:, None]
        gains[e, :, :, e + 1 :] = (limit - steps + 1)[:, None]
    good = best_path(moves, goals, start, gains, KEPT, 0.0)
    gained = best_path(moves, goals, start, gains, None, good.sum())
    worth = lambda steps_in_goal: elsewhere * limit + (in_goal - elsewhere) * steps_in_goal
    return worth(gained / len(goals)), float(worth(np.mean(limit - steps + 1)))


def distances(moves: np.ndarray, start: int) -> np.ndarray:
    """Steps from the start to each cell, [S] int; S where it cannot be reached."""
    found = np.where(np.arange(len(moves)) == start, 0, len(moves))
    for _ in moves:
        np.minimum.at(found, moves, found[:, None] + 1)
    return found


def best_path(
    moves: np.ndarray, goals: np.ndarray, start: int, gains: np.ndarray, kept: int | None, least: float
) -> np.ndarray:
    """What the best path gains in each episode, [E], a sum over goals.

    Args:
        gains: [E, L, n, E], what each episode gains if a goal is met first in this step of this episode.
        kept: paths that grow at a time, the best ones; None: all.
        least: of a path that is known: others that cannot gain as much are left out.
    """
    episodes, limit, n = gains.shape[:3]
    which = np.full(len(moves), n)  # n: no goal
    which[goals] = np.arange(n)
    bit = np.where(which < n, 1 << which, 0)
    gains = np.concatenate([gains, np.zeros_like(gains[:, :, :1])], axis=2)
    most = gains.sum(axis=3).max(axis=2).ravel()  # that a goal is worth in this step
    most = np.maximum.accumulate(most[::-1])[::-1]  # or in a later one
    so_far = np.append(0.0, np.cumsum(most))
    met, cell, gained = np.zeros(1, np.int64), np.array([start]), np.zeros((1, episodes))
    for now in range(1, episodes * limit + 1):
        e, t = divmod(now - 1, limit)
        after = moves[cell if t else np.full(len(met), start)]
        new = (met[:, None] & bit[after]) == 0
        gained = (gained[:, None] + gains[e, t, np.where(new, which[after], n)]).reshape(-1, episodes)
        met, cell = (met[:, None] | bit[after]).ravel(), after.ravel()
        total, left = gained.sum(axis=1), np.minimum(n - np.bitwise_count(met), episodes * limit - now)
        hopeful = np.flatnonzero(total + so_far[now + left] - so_far[now] >= least - 1e-9)
        group = met << BITS | (cell if t + 1 < limit else 0)  # where an episode ended does not matter
        order = hopeful[np.lexsort((-total[hopeful], group[hopeful]))]
        chosen = order[np.append(True, np.diff(group[order]) != 0)]
        if kept is not None:
            chosen = chosen[np.argsort(-total[chosen], kind="stable")[:kept]]
        met, cell, gained = met[chosen], cell[chosen], gained[chosen]
    return gained[gained.sum(axis=1).argmax()]
