"""A maze played several times: RL² (Duan et al., 2016), figure and tables of section 3.3, on a maze seen from above.

    python -m benchmarks.papers.rl2_maze                 # 3 seeds
    python -m benchmarks.papers.rl2_maze --scale smoke

Each trial has a new layout, start and target. The agent, a GRU trained by proximal policy optimisation, sees the 5 × 5
squares around it. It is trained on trials of two episodes, with rewards discounted over the whole trial, and tested on
trials of five, in layouts from another list, actions drawn. How long is an episode, and how long is the shortest path?
An episode without success counts with its time limit, as in the paper's table.

Published numbers stand beside ours for what they show, that the second episode is shorter and the later ones are not
shorter still; their maze is walked in small moves, through a camera, up to 250 of them. Ours: 3 × 3 and 5 × 5 cells,
squares of a grid, at most 36 and 100 moves. "Reached": the second episode is shorter than the first.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from benchmarks.papers._rl2 import Trained, fresh, recorder
from benchmarks.papers.options_planning import pyplot
from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.maze import Maze, MazeParams, maze_tasks, shortest_path
from jaxrl_envs.trial import Trial
from jaxrl_hier.engine.train import RunConfig
from jaxrl_hier.meta import rl2

PAPER = "Duan et al., RL²: Fast reinforcement learning via slow reinforcement learning (2016)"
EPISODES = 5  # of a test trial
UNSEEN = 1  # seed of the list of layouts that are tested on
SIZES = {"small": 3, "large": 5}
PUBLISHED = {  # lengths of episodes 1 to 5 and their half intervals, success, share with episode 2 not longer than 1
    "small": ((52.4, 39.1, 42.6, 43.5, 43.9), (1.3, 0.9, 1.0, 1.1, 1.1), (99.3, 99.6, 99.7, 99.4, 99.6), 91.7),
    "large": ((180.1, 151.8, 169.3, 162.3, 169.3), (6.0, 5.9, 6.3, 6.4, 6.5), (97.1, 96.7, 95.8, 95.6, 96.1), 71.4),
}
SETTINGS = rl2.Config(
    episodes_per_trial=2,
    memory="gru",
    memory_size=64,
    encoder_hidden=(64,),
    separate_critic=False,
    environments=256,
    minibatch_size=64,
    epochs=2,
    discount=0.99,
    gae_lambda=0.95,
    clip=0.2,
    entropy_weight=0.01,
    learning_rate=1e-3,
    max_grad_norm=0.5,
    eval_tasks=100,
)
ITERATIONS = {"small": 150, "large": 600}


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 3
    """independent trainings for each size"""
    sizes: tuple[Literal["small", "large"], ...] = ("small", "large")
    """mazes of 3 by 3 and of 5 by 5 cells"""
    tasks: int = 2000
    """fresh mazes that each agent is tested on"""
    out: Path = ROOT / "papers"
    """folder for the JSON, the picture and the animation"""
    keep: Path | None = None
    """folder for trained agents; a second call does not train them again"""


def main(arguments: Arguments) -> None:
    begun = time.perf_counter()
    smoke = arguments.scale == "smoke"
    rows: list[Row] = []
    measured: dict[str, Tested] = {}
    trained: dict[str, Any] = {}
    for size in arguments.sizes[: 1 if smoke else None]:
        settings = replace(SETTINGS, environments=64, memory_size=16) if smoke else SETTINGS
        iterations = 2 if smoke else ITERATIONS[size]
        run = RunConfig(
            iterations=iterations,
            seeds=arguments.seeds,
            log_every=iterations // 2 if smoke else iterations // 10,
            checkpoint_every=iterations // 2 if smoke else iterations // 10,
            tensorboard=False,
        )
        env = Maze(SIZES[size])
        agent = Trained(f"maze-{size}", settings, env, maze_tasks(env), run, arguments.keep)
        trained[size] = agent.about()
        measured[size] = tested(agent, env, 100 if smoke else arguments.tasks)
        made = made_rows(size, measured[size])
        show(made)
        rows += made
        animation(agent, env, measured[size], arguments.out / f"rl2_maze_{size}.gif")
    picture(measured, arguments.out / "rl2_maze.png")
    path = write_paper(
        "rl2_maze",
        PAPER,
        "table 3 (a) to (c): lengths, success and improvement in the maze, on a grid",
        rows,
        arguments.scale,
        arguments.out,
        trained=trained,
        wall_seconds=time.perf_counter() - begun,
    )
    print(path)


@dataclass(frozen=True)
class Tested:
    """What the agents did in trials of EPISODES episodes; S seeds, N mazes."""

    length: np.ndarray  # [S, N, EPISODES] steps
    success: np.ndarray  # [S, N, EPISODES] bool
    shortest: np.ndarray  # [N] steps
    path: np.ndarray  # [T, N, 2] positions of the first seed's agent before each step
    tasks: Any  # MazeParams [N]


def tested(agent: Trained, env: Maze, count: int) -> Tested:
    limit = int(env.default_params.max_steps_in_episode)
    trial = Trial(env, EPISODES)
    batch = fresh(trial.tasks_of(maze_tasks(env, seed=UNSEEN)), count)

    def record(worlds: Any) -> Any:
        return worlds.env_state.episode, worlds.env_state.inner.position

    play = recorder(trial, agent.algorithm.agent, EPISODES * limit, record)
    lengths, successes, paths = [], [], []
    for params in agent.params:
        (episode, position), seen = play(params, batch)
        # what comes after the trial's end is another trial of the same task
        within = np.cumsum(np.roll(seen.terminated, 1, axis=0) & (np.arange(len(episode)) > 0)[:, None], axis=0) == 0
        of_episode = [within & (episode == e) for e in range(EPISODES)]
        lengths.append(np.stack([mask.sum(axis=0) for mask in of_episode], axis=1))
        successes.append(np.stack([(mask & (seen.reward > 0)).any(axis=0) for mask in of_episode], axis=1))
        paths.append(position)
    shortest = jax.device_get(jax.jit(jax.vmap(shortest_path))(batch.task))
    return Tested(np.stack(lengths), np.stack(successes), shortest, paths[0], jax.device_get(batch.task))


def made_rows(size: str, t: Tested) -> list[Row]:
    lengths, _, success, improved = PUBLISHED[size]
    away = "in camera moves"
    rows = []
    for e in range(EPISODES):
        row = Row.measured(f"{size} maze, episode {e + 1}: steps", t.length[..., e].mean(1))
        row.exact, row.note = float(t.shortest.mean()), f"exact: the shortest path; published, {away}: {lengths[e]}"
        rows.append(row)
    change = t.length[..., 1] - t.length[..., 0]
    row = Row.measured(f"{size} maze: steps of episode 2 minus those of episode 1", change.mean(axis=1))
    row.note = f"published, {away}: {lengths[1] - lengths[0]:.1f}"
    rows.append(row.judged("below 0"))
    share = 100 * np.mean(t.length[..., 1] <= t.length[..., 0], axis=1)
    percent = {
        f"episode {e + 1}: % success": (100 * t.success[..., e].mean(axis=1), success[e]) for e in range(EPISODES)
    }
    percent["% with episode 2 no longer than episode 1"] = share, improved
    for label, (values, published) in percent.items():
        label = f"{size} maze{',' if label.startswith('episode') else ':'} {label}"
        row = Row.measured(label, values, statistic="mean inside", bounds=(0.0, 100.0), published=published)
        row.note = f"published: {away}"
        rows.append(row.judged())
    both = t.success[..., 0] & t.success[..., 1]
    straight = [100 * np.mean(n[b, 1] == t.shortest[b]) for n, b in zip(t.length, both)]
    label = f"{size} maze: % of second episodes on the shortest path, after a success"
    rows.append(Row.measured(label, straight, statistic="mean inside", bounds=(0.0, 100.0)))
    return rows


# Pictures


def picture(measured: dict[str, Tested], path: Path) -> None:
    """For each size: steps by episode beside the shortest path, and the first against the second episode."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import BLUE, STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2 * len(measured), figsize=(4.4 * 2 * len(measured), 4.0), squeeze=False)
        for (left, right), (size, t) in zip(axes.reshape(-1, 2), measured.items()):
            episodes = np.arange(1, EPISODES + 1)
            for seed in t.length.mean(axis=1):
                left.plot(episodes, seed, color=BLUE, lw=0.8, alpha=0.4)
            left.plot(episodes, t.length.mean(axis=(0, 1)), "o-", color=BLUE, lw=1.8, label="RL²")
            left.axhline(t.shortest.mean(), color="black", lw=1.2, ls=(0, (4, 2)), label="shortest path")
            left.axvspan(2.5, EPISODES + 0.4, color="0.95", lw=0)
            left.text(4, 0.4, "beyond what was trained", ha="center", va="bottom", fontsize=8, color="0.4")
            left.set(xticks=episodes, xlim=(0.7, EPISODES + 0.4), ylim=(0, None))
            left.set(xlabel="episode of the trial", ylabel="steps, mean", title=f"{size} maze")
            left.legend(loc="lower left", fontsize=9)
            spread = np.random.default_rng(0).uniform(-0.35, 0.35, (2, t.length.shape[1]))
            first, second = t.length[0, :, 0] + spread[0], t.length[0, :, 1] + spread[1]
            right.plot(first, second, ".", ms=3, color=BLUE, alpha=0.35, rasterized=True)
            limit = t.length[..., :2].max() + 2
            right.plot([0, limit], [0, limit], color="0.6", lw=0.8)
            right.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
            right.set(xlabel="steps of the first episode", ylabel="steps of the second", title="a dot for each maze")
        figure.savefig(path, dpi=140)
        plt.close(figure)


def animation(agent: Trained, env: Maze, t: Tested, path: Path, size: int = 330, milliseconds: int = 130) -> None:
    """A trial of the first seed, its first two episodes: the maze with a middling gain, among the successful ones."""
    found = np.flatnonzero(t.success[0, :, 0] & t.success[0, :, 1])
    found = found if len(found) else np.arange(t.length.shape[1])
    gain = t.length[0, found, 0] - t.length[0, found, 1]
    chosen = found[np.argsort(gain)[int(0.8 * len(gain))]]
    task: MazeParams = jax.tree.map(lambda x: x[chosen], t.tasks)
    frames, durations, begin = [], [], 0
    for e in range(2):
        steps = int(t.length[0, chosen, e])
        path_of = t.path[begin : begin + steps, chosen]
        walked = [*path_of, task.goal if t.success[0, chosen, e] else path_of[-1]]
        for k in range(steps + 1):
            text = f"step {k}" if k < steps else f"{steps} steps, shortest {t.shortest[chosen]}"
            frames.append(frame(env, task, walked[: k + 1], f"episode {e + 1}", text, size))
            durations.append(milliseconds if k < steps else 12 * milliseconds)
        begin += steps
    from jaxrl_hier.pictures.animation import with_one_palette

    images = with_one_palette(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)


def frame(env: Maze, task: MazeParams, walked: list, left: str, right: str, size: int) -> np.ndarray:
    """The maze under a line of text, uint8 [height, size, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    header = 0.1  # of the maze's size
    figure = Figure(figsize=(size / 100, size * (1 + header) / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1 / (1 + header)))
    env.draw(ax, task, position=walked[-1], path=walked)
    middle, font = 1 - header / 2 / (1 + header), size / 26
    figure.text(0.04, middle, left, fontsize=font, weight="bold", color="0.15", va="center")
    figure.text(0.96, middle, right, fontsize=font, color="0.4", va="center", ha="right")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
