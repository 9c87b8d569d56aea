"""An episode of a trained policy as an animation, of any environment that can be rendered.

That is one with `render(state, params)`, see `jaxrl_envs.contract`; one whose observations are grids of channels
[H, W, C], as MinAtar's; and one of Gymnasium with the render mode "rgb_array".
"""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.boxes import accepted
from jaxrl_envs.contract import EnvCheckError, Played, on_host
from jaxrl_envs.rendering import frame_of, renders
from jaxrl_envs.tasks import single
from jaxrl_hier.engine.adapting import as_agent
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.rollout import advance, begin
from jaxrl_hier.engine.types import Transition, World
from jaxrl_hier.pictures import Trained
from jaxrl_hier.pictures.animation import MOST, save_gif
from jaxrl_hier.policy import Policy
from jaxrl_hier.reports.plotting import evenly

LONGEST = 2000  # most steps of the episode


class Episode(NamedTuple):
    """An episode of T steps of one environment."""

    task: Any
    states: Any  # [T + 1, ...] of the environment, before each step and after the last
    steps: Transition  # [T, ...]


def draw(trained: Trained, folder: Path) -> list[Path]:
    """Draw <folder>/episode.gif, a greedy episode; nothing if the environment cannot be rendered. Returns the paths
    written. An error in the environment's `render` is printed in one line and not raised."""
    try:
        frames = host_frames(trained) if on_host(trained.env) else frames_of(trained)
    except EnvCheckError as error:
        print(f"jaxrl-hier: no episode.gif: {error}", file=sys.stderr)
        return []
    if len(frames) < 3:  # one step is no animation
        return []
    save_gif(folder / "episode.gif", frames)
    return [folder / "episode.gif"]


def frames_of(trained: Trained, most: int = MOST) -> list[np.ndarray]:
    """Frames of a greedy episode on a test task, evenly spread, first and last included; none where the environment
    cannot be rendered."""
    if not renders(trained.env):
        return []
    e = play(trained)
    obs = jax.tree.map(lambda x, y: np.concatenate([x, y[-1:]]), e.steps.obs, e.steps.next_obs)
    at = lambda tree, t: jax.tree.map(lambda x: x[t], tree)
    moments = evenly(len(e.steps.reward) + 1, most)
    return [frame_of(trained.env, at(e.states, t), e.task, at(obs, t)) for t in moments]


def play(trained: Trained, greedy: bool = True, longest: int = LONGEST) -> Episode:
    """An episode on the first test task, or on a sampled one where none is held out, up to the task's time limit or
    `longest` steps. An algorithm that adapts is adapted to the task first."""
    env, algorithm, params = trained.env, trained.algorithm, trained.state.params
    key_adapt, key_play = jax.random.split(jax.random.fold_in(trained.state.key, trained.state.iteration))
    task = jax.tree.map(lambda x: jnp.asarray(x)[0], trained.tasks.test_batch(1, jax.random.key(0)))
    played = Played(env)
    horizon = min(int(getattr(task, "max_steps_in_episode", longest)), longest)

    # parameters and task are arguments: XLA would fold constants while it compiles, and in some programs, such as the
    # draw of a start in four rooms, that crashes the process
    @jit
    def whole(params: Any, task: Any, key_adapt: jax.Array, key_play: jax.Array) -> Any:
        agent, only = algorithm.agent, single(task)
        if algorithm.adapt is not None and algorithm.player is not None:
            agent = as_agent(algorithm.player, algorithm.adapt(params, task, key_adapt))

        def step(world: World, _: Any) -> tuple[World, Any]:
            after, transition = advance(played, agent, only, params, world, greedy)
            return after, (world.env_state, world.key, transition)

        return jax.lax.scan(step, begin(env, agent, only, params, key_play), length=horizon)[1]

    states, keys, steps = whole(params, task, key_adapt, key_play)
    over = np.asarray(steps.terminated | steps.truncated)
    length = int(np.argmax(over)) + 1 if over.any() else horizon
    states, keys, steps = jax.tree.map(lambda x: x[:length], (states, keys, steps))
    # the final state, which `advance` has replaced by the next episode's first one
    state, action, key = jax.tree.map(lambda x: x[-1], (states, steps.action, jax.random.split(keys[-1], 4)[2:3]))
    last = jax.jit(played.step)(key, state, accepted(played, task, action), task).state
    states = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), states, last)
    return Episode(*jax.device_get((task, states, steps)))


def host_frames(trained: Trained, most: int = MOST) -> list[np.ndarray]:
    """Frames of a greedy episode of a Gymnasium environment, evenly spread; none without a render mode "rgb_array" or
    the packages for it."""
    import gymnasium

    env = trained.env
    shown = env.rendered()
    if shown is None:
        return []
    with closing(shown):
        policy = Policy(trained.algorithm, trained.state.params, env, trained.tasks)
        env.tell(shown, env.default_params)
        obs, _ = shown.reset(seed=0)
        try:
            frames = [np.asarray(shown.render())]
        except (gymnasium.error.Error, ImportError):  # such as pygame's, which training does without
            return []
        reward, over = 0.0, False
        for _ in range(env.default_params.max_steps_in_episode):
            obs, reward, terminated, truncated, _ = shown.step(policy.act(obs, reward, over))
            over = terminated or truncated
            frames.append(np.asarray(shown.render()))
            if over:
                break
    return [frames[i] for i in evenly(len(frames), most)]
