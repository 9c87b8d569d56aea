"""PEARL on the sparse point robot: Rakelly et al. (ICML 2019), section 6.3 and the ablations of 6.4.

A goal on a half circle that is rewarded within 0.2 of it and has to be found. The return of an episode on the 20 test
goals by the number of earlier ones in the context, over meta-training and at its end, beside the exact optimum of these
goals (the mean over all 100 is 13.375). The first episodes of a test are played with z from the prior. As in the paper
the losses of meta-training see the distance to the goal, contexts and results only the sparse reward.

With the context of another goal (its belief after all episodes) the return must fall. Ablations, at the same number of
steps: z without noise, contexts of training from the whole memory, a recurrent encoder, SAC without a value network.
The paper shows curves and no tables: published values are none, its claims are the verdicts on differences.

`cpu` has smaller networks and batches than `gpu`, which has the authors' settings. Ablations have two seeds.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl_envs
from jaxrl_envs.navigation2d import NavigationParams
from jaxrl_envs.point_robot import STEPS, TRAINED, best_return, half_circle_goals
from jaxrl_hier import Run
from jaxrl_hier.engine.rollout import play_episodes
from jaxrl_hier.learning.distributions import DiagonalGaussian
from jaxrl_hier.meta import pearl

from ..drawing import ORANGE, PURPLE, SKY, VERMILION, curve, legend_below, subplots, with_intervals
from ..figure import Figure, Found, Measured, Scale, Training
from ..results import Row

VARIANTS: dict[str, dict[str, Any]] = {
    "PEARL": {},
    "deterministic z": {"deterministic_latent": True},
    "off-policy context": {"context_source": "all"},
    "recurrent encoder": {"recurrent_encoder": True},
    "SAC with two critics": {"critic_target": "critics"},
}
WORSE = ("deterministic z", "off-policy context", "recurrent encoder")  # the paper's claims
OTHER_COLOURS = dict(zip([*VARIANTS][1:], (VERMILION, PURPLE, ORANGE, SKY)))
SMALL: dict[str, Any] = {"tasks_per_iteration": 2, "posterior_steps": 100, "updates": 2, "eval_episodes": 6}
SMALL |= {"hidden": (16,), "encoder_hidden": (16,)}
REPEATS = 10  # evaluations at the end
DRAWS = 12  # samples of z in a panel of the picture
CONTEXTS = (0, 5, 6, 8, 10)  # and so many episodes
GOALS = 3
BEST = best_return(half_circle_goals()[TRAINED:], sparse=True)


def parts(scale: Scale) -> dict[str, Training]:
    common = {"smoke": SMALL, "cpu": {}, "gpu": pearl.PUBLISHED}[scale]
    iterations, points = {"smoke": (2, 2), "cpu": (250, 25), "gpu": (500, 25)}[scale]
    train = partial(Training, "pearl", iterations=iterations, points=points, from_start=scale != "smoke")
    chosen = ["PEARL"] if scale == "smoke" else [*VARIANTS]
    about: Any = lambda name: {
        "measure": partial(tested, paths=name == "PEARL"),
        "seeds": None if name == "PEARL" else 2,
    }
    return {name: train(settings=common | VARIANTS[name], **about(name)) for name in chosen}


# Measured


def tested(run: Run, paths: bool) -> dict[str, np.ndarray]:
    """At the end, on N test goals: the return of an episode after 0 to K episodes of context, [seeds, N, K + 1], and
    with the belief of another goal after K episodes, [seeds, N]. With `paths` also positions [seeds, GOALS, contexts,
    DRAWS, STEPS + 1, 2] of episodes with other samples of z."""
    keys = jax.random.split(jax.random.key(1), REPEATS)
    seen = jax.jit(jax.vmap(jax.vmap(run.algorithm.evaluate, (None, 0)), (0, None)))(run.state, keys)
    belief = DiagonalGaussian(seen["belief_mean"].values[:, 0], jnp.log(seen["belief_std"].values[:, 0]))
    after = lambda k: jax.tree.map(lambda x: x[:, :, k], belief)
    test = run.tasks.test_batch(run.config.eval_tasks, jax.random.key(0))
    played = jax.jit(jax.vmap(partial(episodes, run, test), (0, 0, None)))
    other = jax.tree.map(lambda x: jnp.roll(x, 1, axis=1), after(-1))
    wrong, _ = played(run.state.params, other, jax.random.key(2))
    found = {"returns": np.asarray(seen["return"].values).mean(axis=1), "wrong": np.asarray(wrong)}
    if paths:
        contexts = contexts_of(run.config.eval_episodes)
        walked = [played(run.state.params, after(k), jax.random.key(3))[1][:, goals_shown()] for k in contexts]
        found["paths"] = np.stack(walked, axis=2).astype(np.float16)
    return found


def episodes(
    run: Run, tasks: NavigationParams, params: Any, belief: DiagonalGaussian, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return [N] and positions [N, DRAWS, STEPS + 1, 2] of episodes with samples of the beliefs [N] about tasks [N]."""

    def one(belief: DiagonalGaussian, task: NavigationParams, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        acting, agent = params._replace(belief=belief), run.algorithm.agent
        t = play_episodes(run.env, agent, task, acting, key, episodes=DRAWS, horizon=STEPS, greedy=True)
        reward = jax.vmap(jax.vmap(partial(run.env.sparse_reward, params=task)))(t.next_obs)
        positions = jnp.concatenate([t.obs[:1], t.next_obs])
        return jnp.mean(jnp.sum(reward, axis=0)), jnp.swapaxes(positions, 0, 1)

    return jax.vmap(one)(belief, tasks, jax.random.split(key, len(belief.mean)))


def goals_shown() -> np.ndarray:
    """Test goals spread over the half circle, from the left to the right."""
    goals = half_circle_goals()[TRAINED:]
    by_angle = np.argsort(np.arctan2(goals[:, 1], goals[:, 0]))
    return by_angle[np.linspace(1, len(goals) - 2, GOALS).astype(int)][::-1]


def contexts_of(longest: int) -> list[int]:
    return sorted({*CONTEXTS, longest} & set(range(longest + 1)))


# Rows


def rows(found: Found) -> list[Row]:
    made: list[Row] = []
    best = float(BEST.mean())
    inside: dict[str, Any] = {"statistic": "mean inside", "bounds": (0.0, best)}
    for measured in found.values():
        assert (measured["returns"] <= BEST[:, None] + 1e-3).all(), "a return exceeds the exact optimum"
    at_end = {name: measured["returns"].mean(axis=1) for name, measured in found.items()}  # [seeds, K + 1]
    last = next(iter(at_end.values())).shape[1] - 1
    if "PEARL" in found:
        for k in sorted({0, 1, 2, 5, 6, last} & set(range(last + 1))):
            row = Row.measured(f"PEARL, {k} episodes of context: return", at_end["PEARL"][:, k], **inside)
            row.exact, row.note = best, "exact: the best on the test goals, by a plan that knows them"
            made.append(row.judged())
        wrong = found["PEARL"]["wrong"].mean(axis=1)
        made.append(wrong_row(found["PEARL"]))
        # the same seeds with either context
        label = f"context of another goal minus its own, {last} episodes"
        row = Row.measured(label, wrong, at_end["PEARL"][:, last], statistic="paired difference")
        row.note = "claim: negative"
        made.append(row.judged("below 0"))
    for name in filter(at_end.__contains__, [*VARIANTS][1:]):
        values = at_end[name][:, last]
        row = Row.measured(f"{name}, {last} episodes of context: return", values, **inside, exact=best)
        made.append(row.judged())
        if "PEARL" in found:
            about = inside | {"statistic": "difference inside"}
            label = f"{name} minus PEARL, {last} episodes of context"
            row = Row.measured(label, values, at_end["PEARL"][:, last], **about)
            if name in WORSE:
                row.judged("below 0").note = "claim: negative"
            made.append(row)
    return made


def wrong_row(measured: Measured) -> Row:
    label = f"PEARL, {measured['returns'].shape[-1] - 1} episodes of another goal's context: return"
    bounds = (0.0, float(BEST.mean()))
    return Row.measured(label, measured["wrong"].mean(axis=1), statistic="mean inside", bounds=bounds)


# Pictures


def draw(found: Found) -> dict[str, Any]:
    return {"": curves(found)} | ({"paths": paths(found["PEARL"])} if "PEARL" in found else {})


def curves(found: Found) -> Any:
    """Left: meta-training, return with the longest context. Right: return by context at the end. Bands: 95 %."""
    figure, ((left, right),) = subplots(1, 2, width=5.2, height=4.4, sharey=True)
    for name, x in found.items():
        settings = x.about["identity"]["settings"]
        steps = x["env_steps"] + settings["initial_steps"] * TRAINED  # which were played before the first iteration
        longest, color = settings["eval_episodes"], OTHER_COLOURS.get(name)
        curve(left, steps / 1000, x["return"][..., -1], name, color=color)
        curve(right, np.arange(longest + 1), x["returns"].mean(axis=1), name, color=color, marker="o", ms=3.5)
        if name == "PEARL":
            label = "PEARL, context of another goal"
            with_intervals(right, [longest], [wrong_row(x)], "black", label, fmt="x", ms=7)
    for ax in (left, right):
        ax.axhline(BEST.mean(), color="black", lw=1.1, ls="--", label="best possible")
    left.set(xlabel="thousand environment steps of meta-training", ylabel="return of an episode, test goals")
    left.set_title(f"after {longest} episodes of context")
    right.set(xlabel="episodes in the context", title="at the end of meta-training", ylim=(-0.4, BEST.mean() + 0.8))
    legend_below(figure, right, 4, fontsize=9)
    return figure


def paths(measured: Measured) -> Any:
    """Paths with samples of z: a row for each goal, a column for each context; the first seed."""
    env, tasks = jaxrl_envs.make("sparse-point-robot")
    test = jax.tree.map(np.asarray, tasks.test_batch(len(BEST), jax.random.key(0)))
    contexts = contexts_of(measured.about["identity"]["settings"]["eval_episodes"])
    figure, axes = subplots(GOALS, len(contexts), width=2.3, height=1.75)
    for row, goal, walked in zip(axes, goals_shown(), measured["paths"][0].astype(float)):
        for ax, path in zip(row, walked):
            env.draw(ax, jax.tree.map(lambda leaf, i=goal: leaf[i], test), list(path))
            ax.grid(False)
            ax.set(xlim=(-1.5, 1.5), ylim=(-0.6, 1.4))
    for ax, k in zip(axes[0], contexts):
        ax.set_title("z from the prior" if k == 0 else f"{k} episodes of context", fontsize=9.5)
    return figure


FIGURE = Figure(
    name="pearl_point_robot",
    paper="Rakelly et al., Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic Context Variables, ICML "
    "2019",
    shows="sparse 2-D navigation: return by context episodes, ablations",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=3,
)
