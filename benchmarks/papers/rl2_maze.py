"""A maze played several times: RL² (Duan et al., 2016), figure and tables of section 3.3, on a maze seen from above.

Each trial has a new layout, start and target. The agent, a GRU trained by proximal policy optimisation, sees the 5 × 5
squares around it. It is trained on trials of two episodes, with rewards discounted over the whole trial, and tested on
trials of five, in 2000 layouts from another list, actions drawn. How long is an episode, and how long is the shortest
path? An episode without success counts with its time limit, as in the paper's table.

Published numbers stand beside ours for what they show, that the second episode is shorter and the later ones are not
shorter still; their maze is walked in small moves, through a camera, up to 250 of them. Ours: 3 × 3 and 5 × 5 cells,
squares of a grid, at most 36 and 100 moves. "Reached": the second episode is shorter than the first.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_envs.maze import Maze, MazeParams, maze_tasks, shortest_path
from jaxrl_envs.trial import Trial
from jaxrl_hier import Run
from jaxrl_hier.pictures.animation import save_gif

from ..drawing import colour, subplots
from ..figure import Figure, Found, Measured, Scale, Training
from ..results import Row
from ._rl2 import DUAN, each_seed, fresh, recorder

EPISODES = 5  # of a test trial
UNSEEN = 1  # seed of the list of layouts that are tested on
SIZES = {"small": 3, "large": 5}
PUBLISHED = {  # lengths of episodes 1 to 5, success, share with episode 2 not longer than 1
    "small": ((52.4, 39.1, 42.6, 43.5, 43.9), (99.3, 99.6, 99.7, 99.4, 99.6), 91.7),
    "large": ((180.1, 151.8, 169.3, 162.3, 169.3), (97.1, 96.7, 95.8, 95.6, 96.1), 71.4),
}
SETTINGS: dict[str, Any] = {
    "episodes_per_trial": 2,
    "memory": "gru",
    "memory_size": 64,
    "encoder_hidden": (64,),
    "separate_critic": False,
    "environments": 256,
    "minibatch_size": 64,
    "epochs": 2,
    "discount": 0.99,
    "gae_lambda": 0.95,
    "clip": 0.2,
    "entropy_weight": 0.01,
    "learning_rate": 1e-3,
    "max_grad_norm": 0.5,
    "eval_tasks": 100,
}
ITERATIONS = {"small": 150, "large": 600}


def parts(scale: Scale) -> dict[str, Training]:
    smoke = scale == "smoke"
    settings = SETTINGS | ({"environments": 64, "memory_size": 8, "encoder_hidden": (8,)} if smoke else {})
    count, points = (50, 2) if smoke else (2000, 10)
    return {
        size: Training(
            "rl2", settings, 2 if smoke else ITERATIONS[size], f"maze-{size}", points=points, curves=(),
            measure=partial(played, count=count),
        )
        for size in (["small"] if smoke else SIZES)
    }  # fmt: skip


def test_mazes(env: Maze, count: int) -> Any:
    """Trials of EPISODES episodes, [count]."""
    return fresh(Trial(env, EPISODES).tasks_of(maze_tasks(env, seed=UNSEEN)), count)


def played(run: Run, count: int) -> dict[str, np.ndarray]:
    """What each seed's agent does in N mazes: length in steps and success of each episode, [seeds, N, EPISODES]; the
    shortest path [seeds, N] in steps, the same for all; of the maze that is shown its number [seeds] and the agent's
    positions in two episodes, [seeds, T, 2]."""
    env, limit = run.env, int(run.env.default_params.max_steps_in_episode)
    batch = test_mazes(env, count)
    record = lambda worlds: (worlds.env_state.episode, worlds.env_state.inner.position)
    play = recorder(Trial(env, EPISODES), run.algorithm.agent, EPISODES * limit, record)
    shortest = jax.device_get(jax.jit(jax.vmap(shortest_path))(batch.task))
    found = []
    for params in each_seed(run):
        (episode, position), seen = play(params, batch)
        # what comes after the trial's end is another trial of the same task
        within = np.cumsum(np.roll(seen.terminated, 1, axis=0) & (np.arange(len(episode)) > 0)[:, None], axis=0) == 0
        of_episode = [within & (episode == e) for e in range(EPISODES)]
        length = np.stack([mask.sum(axis=0) for mask in of_episode], axis=1)
        success = np.stack([(mask & (seen.reward > 0)).any(axis=0) for mask in of_episode], axis=1)
        shown = maze_to_show(length, success)
        found.append((length.astype(np.uint8), success, shortest, shown, position[: 2 * limit, shown]))
    names = ("length", "success", "shortest", "shown", "path")
    return {name: np.stack(values) for name, values in zip(names, zip(*found))}


def maze_to_show(length: np.ndarray, success: np.ndarray) -> int:
    """The maze with a gain in the second episode that four of five do not exceed, among the successful ones."""
    good = np.flatnonzero(success[:, 0] & success[:, 1])
    good = good if len(good) else np.arange(len(length))
    return int(good[np.argsort(length[good, 0] - length[good, 1])[int(0.8 * len(good))]])


# Rows


def rows(found: Found) -> list[Row]:
    return [row for size, measured in found.items() for row in maze_rows(size, measured)]


def maze_rows(size: str, measured: Measured) -> list[Row]:
    lengths, success, improved = PUBLISHED[size]
    length, succeeded, shortest = measured["length"].astype(int), measured["success"], measured["shortest"][0]
    away = "in camera moves"
    made = []
    for e in range(EPISODES):
        row = Row.measured(f"{size} maze, episode {e + 1}: steps", length[..., e].mean(1))
        row.exact, row.note = float(shortest.mean()), f"exact: the shortest path; published, {away}: {lengths[e]}"
        made.append(row)
    change = length[..., 1] - length[..., 0]
    row = Row.measured(f"{size} maze: steps of episode 2 minus those of episode 1", change.mean(axis=1))
    row.note = f"published, {away}: {lengths[1] - lengths[0]:.1f}"
    made.append(row.judged("below 0"))
    percent: Any = {"statistic": "mean inside", "bounds": (0.0, 100.0)}
    shares = {f", episode {e + 1}: % success": (succeeded[..., e], success[e]) for e in range(EPISODES)}
    shares[": % with episode 2 no longer than episode 1"] = change <= 0, improved
    for label, (values, theirs) in shares.items():
        row = Row.measured(f"{size} maze{label}", 100 * values.mean(axis=1), published=theirs, **percent)
        row.note = f"published: {away}"
        made.append(row.judged())
    both = succeeded[..., 0] & succeeded[..., 1]
    straight = [100 * np.mean(n[b, 1] == shortest[b]) if b.any() else 0.0 for n, b in zip(length, both)]
    label = f"{size} maze: % of second episodes on the shortest path, after a success"
    return [*made, Row.measured(label, straight, **percent)]


# Pictures


def draw(found: Found) -> dict[str, Any]:
    """For each size: steps by episode beside the shortest path, and the first against the second episode."""
    figure, axes = subplots(1, 2 * len(found), width=4.4, height=4.0)
    color, episodes = colour("RL²"), np.arange(1, EPISODES + 1)
    for (left, right), (size, measured) in zip(axes.reshape(-1, 2), found.items()):
        length, shortest = measured["length"].astype(int), measured["shortest"][0].mean()
        for k, seed in enumerate(length.mean(axis=1)):
            left.plot(episodes, seed, color=color, lw=0.8, alpha=0.5, label=None if k else "RL², a seed")
        left.plot(episodes, length.mean(axis=(0, 1)), "o-", color=color, lw=1.8, label="RL², mean of the seeds")
        left.axhline(shortest, color="black", lw=1.2, ls="--", label="shortest path")
        left.axvspan(2.5, EPISODES + 0.4, color="0.93", lw=0)
        left.text(3.95, 0, "beyond what was trained", ha="center", va="bottom", fontsize=9, color="0.4")
        left.set(xticks=episodes, xlim=(0.7, EPISODES + 0.4), ylim=(0, 1.5 * length.mean(axis=1).max()))
        left.set(xlabel="episode of the trial", ylabel="steps, mean", title=f"{size} maze")
        left.legend(loc="upper right", fontsize=9)
        spread = np.random.default_rng(0).uniform(-0.35, 0.35, (2, length.shape[1]))
        first, second = length[0, :, 0] + spread[0], length[0, :, 1] + spread[1]
        limit = length[..., :2].max() + 2
        right.fill_between([0, limit], [0, limit], color="0.93", lw=0)
        right.plot(first, second, ".", ms=3, color=color, alpha=0.35, rasterized=True)
        right.set(xlim=(0, limit), ylim=(0, limit), aspect="equal", title="a dot for each layout; grey: second shorter")
        right.set(xlabel="steps of the first episode", ylabel="steps of the second episode")
    return {"": figure}


def animate(found: Found, folder: Path) -> None:
    """A trial of the first seed for each size, its first two episodes."""
    for size, measured in found.items():
        save_gif(folder / f"rl2_maze_{size}.gif", frames(Maze(SIZES[size]), measured), milliseconds=130)


def frames(env: Maze, measured: Measured, pause: int = 10) -> list[np.ndarray]:
    """The last frame of the first episode is repeated, so that it stays."""
    length, success, shown = measured["length"][0], measured["success"][0], int(measured["shown"][0])
    task = jax.tree.map(lambda x: np.asarray(x[shown]), test_mazes(env, len(length)).task)
    made, begin = [], 0
    for e in range(2):
        steps = int(length[shown, e])
        path = measured["path"][0, begin : begin + steps]
        walked = [*path, task.goal if success[shown, e] else path[-1]]
        for k in range(steps + 1):
            text = f"step {k}" if k < steps else f"{steps} steps, shortest {measured['shortest'][0, shown]}"
            made.append(frame(env, task, walked[: k + 1], f"episode {e + 1}", text))
        made += [made[-1]] * (pause if e == 0 else 0)
        begin += steps
    return made


def frame(env: Maze, task: MazeParams, walked: list, left: str, right: str, size: int = 320) -> np.ndarray:
    """The maze under a line of text, uint8 [height, size, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    header = 0.1  # of the maze's size
    figure = Canvas(figsize=(size / 110, size * (1 + header) / 110), dpi=100)
    figure.set_layout_engine("none")
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1 / (1 + header)))
    env.draw(ax, task, position=walked[-1], path=walked)
    middle, font = 1 - header / 2 / (1 + header), size / 28
    figure.text(0.04, middle, left, fontsize=font, weight="bold", color="0.15", va="center")
    figure.text(0.96, middle, right, fontsize=font, color="0.4", va="center", ha="right")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


FIGURE = Figure(
    name="rl2_maze",
    paper=DUAN,
    shows="table 3 (a) to (c): lengths, success and improvement in the maze, on a grid",
    parts=parts,
    rows=rows,
    draw=draw,
    animate=animate,
    seeds=3,
)
