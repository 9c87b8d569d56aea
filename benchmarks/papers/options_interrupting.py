"""Interrupting options: Sutton, Precup & Singh (Artificial Intelligence 112, 1999), figures 7 and 8, and four rooms.

Everything is deterministic or exact, and every step pays −1 without discount but in four rooms.

- The moving mass (figure 8) is specified in full. Two controllers bring it to rest at 1 and at 2.
- The landmarks (figure 7) are not: neither their coordinates nor the radius of the controllers could be found. We draw
  100 000 random layouts of seven landmarks, the last in the corner opposite to the start, and compare those whose
  solution without interruption takes 590 to 610 steps, where the paper's takes 600, with the paper's interrupted
  solution. The layout in the picture is the one of them that is nearest to both published numbers; its numbers are
  compared with nothing. The paper's claims are tested in all of these layouts and in all points of a grid.
- In four rooms, where the paper does not interrupt, the hallway options end wherever the optimal policy over them
  prefers another (`exact.smdp.interrupt`). They are interrupted again with the new values, and so on.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.controller_tasks import SIDE, Landmarks, MovingMass, random_landmarks
from jaxrl_envs.four_rooms import G1, G2, FourRooms, cell_index
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical import controllers as ctl

from ..drawing import BLUE, VERMILION, subplots
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from ._options import GAMMA, SPS, START, options_of

SMDP, INTERRUPTED, BEST = 600, 474, 425  # published steps of figure 7
NEAR = 10  # steps around SMDP
GRID = 61  # points of the square's side
GOALS = {"G1": G1, "G2": G2}
PASSES = 5  # interruptions of four rooms' options, one after the other


def parts(scale: Scale) -> dict[str, Computation]:
    smoke = scale == "smoke"
    about = {"draws": 1000 if smoke else 100_000, "near": 100 if smoke else NEAR}
    shared = ("closest", "landmarks", "radius", "paths", "before", "after")
    return {
        "mass": Computation(mass, seeds=0),
        "landmarks": Computation(layouts, about, seeds=1, shared=shared),
        "four rooms": Computation(four_rooms, seeds=0),
    }


def mass() -> dict[str, np.ndarray]:
    """Positions and velocities [T + 1, 2] of both solutions, their "steps"; and "one earlier", where the second
    controller may start from the position before the first one beyond 0.5."""
    with jax.enable_x64(True):
        step = ctl.mass_step(MovingMass())

        def run(controllers: ctl.Controllers, interrupt: bool) -> ctl.Execution:
            values = ctl.target_values(controllers)
            of = lambda state: ctl.execute(step, controllers, values, state, 250, interrupt)
            return jax.jit(of)(jnp.zeros(2))

        whole, cut = (run(ctl.mass_controllers(), interrupt) for interrupt in (False, True))
        switch = int(np.argmax(np.asarray(cut.option) == 1))
        earlier = run(ctl.mass_controllers(float(cut.states[switch - 1, 0]) - 1e-9), True)
        found = {"whole": whole.states, "cut": cut.states, "switch": switch, "switched at": cut.states[switch]}
        steps = {"steps whole": whole.steps, "steps cut": cut.steps, "one earlier": earlier.steps}
        return {name: np.asarray(x) for name, x in (found | steps).items()}


def layouts(seeds: Sequence[int], draws: int, near: int) -> dict[str, np.ndarray]:
    """Random layouts.

    Returns:
        "solved" [1] of so many draws; and of those within `near` steps of SMDP planned and taken steps, "promised",
        "whole" and, with interruption, "cut" [1, N]. Of the layout closest to both published numbers "closest" [2],
        "landmarks" [L, 2], "radius" [], "paths" [2, T + 1, 2] and steps to the goal "before" and "after" interruption
        [GRID, GRID], NaN where no controller may start.
    """
    with jax.enable_x64(True):
        env = Landmarks()
        keys = jax.random.split(jax.random.key(seeds[0]), draws)

        def solved(key: jax.Array) -> tuple[Any, ctl.Controllers, jax.Array]:
            params = random_landmarks(key)
            controllers = ctl.landmark_controllers(params)
            return params, controllers, ctl.target_values(controllers)

        def promise(key: jax.Array) -> jax.Array:
            params, controllers, values = solved(key)
            return -ctl.state_value(controllers, values, jnp.asarray(params.start, float))

        def runs(key: jax.Array, start: jax.Array) -> tuple[ctl.Execution, ctl.Execution]:
            params, controllers, values = solved(key)
            step = ctl.landmark_step(env, params)
            whole, cut = (ctl.execute(step, controllers, values, start, 1200, cut) for cut in (False, True))
            return whole, cut

        promised = np.asarray(jax.jit(lambda keys: jax.lax.map(promise, keys, batch_size=1000))(keys))
        chosen = np.flatnonzero(np.abs(promised - SMDP) <= near)
        steps = lambda key: jnp.stack([run.steps for run in runs(key, jnp.zeros(2))])
        both = np.asarray(jax.jit(jax.vmap(steps))(keys[chosen]))  # [N, 2]
        key = keys[chosen[np.abs(both - (SMDP, INTERRUPTED)).sum(axis=1).argmin()]]
        params, controllers, values = solved(key)
        paths = [run.states for run in jax.jit(runs)(key, jnp.zeros(2))]
        x = jnp.linspace(0, SIDE, GRID)
        points = jnp.stack(jnp.meshgrid(x, x), axis=-1).reshape(-1, 2)

        def from_point(point: jax.Array) -> jax.Array:
            steps = jnp.stack([run.steps.astype(float) for run in runs(key, point)])
            return jnp.where(jnp.isfinite(ctl.state_value(controllers, values, point)), steps, jnp.nan)

        before, after = np.asarray(jax.jit(jax.vmap(from_point))(points)).T.reshape(2, GRID, GRID)
        found = {"solved": [np.isfinite(promised).sum()], "promised": promised[chosen][None]}
        found |= {"whole": both[None, :, 0], "cut": both[None, :, 1], "closest": steps(key)}
        found |= {"landmarks": params.landmarks, "radius": params.radius}
        found |= {"paths": np.stack(paths), "before": before, "after": after}
        return {name: np.asarray(x) for name, x in found.items()}


def four_rooms() -> dict[str, np.ndarray]:
    """For each goal and set of options: expected "steps" from (1,1) and "values" [S] of the best policy over the
    options, and of the same policy over interrupted options, [1 + PASSES]."""
    found = {}
    with jax.enable_x64(True):
        env = FourRooms()
        for goal, cell in GOALS.items():
            P, R = env.model(env.default_params.replace(goal=cell_index(*cell)))
            found[f"fewest, {goal}"] = np.asarray(tabular.minimal_expected_steps(P)[START])
            for name in ("H", "A ∪ H"):
                options, steps, values = options_of(name), [], []
                policy = None
                for _ in range(1 + PASSES):
                    models = smdp.option_models(P, R, options, GAMMA)
                    if policy is None:  # the same one for the interrupted options
                        q = smdp.smdp_optimal_values(models, options.initiation, tolerance=1e-12)
                        policy = tabular.greedy_policy(q, options.initiation.T)
                    values.append(smdp.option_policy_evaluation(models, policy))
                    steps.append(smdp.option_expected_steps(P, options, policy)[START])
                    options = smdp.interrupt(options, models, values[-1], margin=1e-9)
                found[f"steps, {name} to {goal}"] = np.stack(steps)
                found[f"values, {name} to {goal}"] = np.stack(values)
    return found


def rows(found: Found) -> list[Row]:
    made = mass_rows(found["mass"]) if "mass" in found else []
    made += landmark_rows(found["landmarks"]) if "landmarks" in found else []
    return made + (room_rows(found["four rooms"]) if "four rooms" in found else [])


def mass_rows(mass: Measured) -> list[Row]:
    of = lambda label, name, published: Row.computed(
        f"moving mass: {label}", float(mass[name]), published=published
    ).judged("lower")
    whole = of("steps without interruption", "steps whole", 210)
    cut = of("steps with interruption", "steps cut", 121)
    position, velocity = mass["switched at"]
    cut.note = (
        f"the controller to 1 is left after {mass['switch']} steps, in the first state beyond 0.5: position "
        f"{position:.4f}, velocity {velocity:.4f}"
    )
    earlier = of("steps with interruption, if the controller to 2 may start one step earlier", "one earlier", 121)
    earlier.note = "which explains the published number; the text lets it start beyond 0.5"
    return [whole, cut, earlier]


def landmark_rows(found: Measured) -> list[Row]:
    whole, cut = found["whole"][0], found["cut"][0]
    best = Row.computed("landmarks: fewest steps of any policy", float(np.ceil(100 * SIDE * np.sqrt(2) - 1e-9)))
    best.published, best.note = BEST, "start and goal are taken to be opposite corners because that is so far"
    longer = Row.computed(
        "claim: landmarks, layouts in which interruption takes more steps", float((cut > whole).sum())
    )
    longer.note = f"of {len(whole)} layouts; {(cut < whole).mean():.1%} take fewer"
    longer.verdict = "reached" if (cut <= whole).all() else "short"
    about = "layouts that take about 600 without"
    mean = Row.measured(f"landmarks: steps with interruption, {about}", cut, unit="layouts")
    mean.note = (
        f"{len(cut)} of {found['solved'][0]} random layouts with a way to the goal take {whole.min()} to {whole.max()} "
        "steps without interruption"
    )
    rank = Row.computed(f"claim: landmarks, share of {about} with at most the published {INTERRUPTED}", 0.0)
    rank.ours = float((cut <= INTERRUPTED).mean())
    rank.verdict = "reached" if 0.025 <= rank.ours <= 0.975 else "short"
    rank.note = "reached: from .025 to .975, so that the paper's layout could be one of these"
    kept = np.abs(found["promised"][0] - whole).max()
    promised = Row.computed("landmarks: largest difference of planned and taken steps, without interruption", kept)
    promised.exact, promised.verdict = 0.0, "reached" if kept == 0 else "short"
    before, after = found["before"], found["after"]
    seen = np.isfinite(before)
    worse = Row.computed("claim: landmarks, points of a grid from where interruption takes more steps", 0.0)
    worse.ours = float((after[seen] > before[seen]).sum())
    worse.verdict = "reached" if worse.ours == 0 else "short"
    fewer, saved = (after[seen] < before[seen]).mean(), (before - after)[seen].mean()
    worse.note = (
        "the paper: the values of the interrupted policy are greater everywhere. The layout in the picture: of "
        f"{seen.sum()} points in reach of a controller {fewer:.0%} take fewer steps, {saved:.0f} on average over all; "
        "the others take as many, such as those where one controller leads to the goal at once"
    )
    shown = [
        Row.computed(f"landmarks: steps {how} interruption, layout in the picture", float(steps))
        for how, steps in zip(("without", "with"), found["closest"])
    ]
    for row in shown:
        row.note = f"chosen for being close to the published {SMDP} and {INTERRUPTED}: nothing to compare with"
    return [best, longer, mean, rank, promised, worse, *shown]


def room_rows(found: Measured) -> list[Row]:
    made = []
    for goal in GOALS:
        for name in ("H", "A ∪ H"):
            steps, values = found[f"steps, {name} to {goal}"], found[f"values, {name} to {goal}"]
            label = f"four rooms, {name} to {goal}"
            whole = Row.computed(f"{label}: expected steps without interruption", float(steps[0]))
            cut = Row.computed(f"{label}: expected steps with interruption", float(steps[1]))
            cut.exact = float(found[f"fewest, {goal}"])
            cut.note = "exact: the fewest of any policy; interrupted again and again with the new values: " + ", ".join(
                f"{x:.2f}" for x in steps[2:]
            )
            loss = Row.computed(f"claim: {label}, largest loss of value by interruption", 0.0)
            loss.ours = float(max((values[:-1] - values[1:]).max(), 0.0))
            loss.verdict = "reached" if loss.ours < 1e-9 else "short"
            loss.note = f"over all cells and {PASSES} interruptions, one after the other; the theorem says none"
            made += [whole, cut, loss]
    return made


def draw(found: Found) -> dict[str, Any]:
    pictures = {"": landmark_figure(found["landmarks"])} if "landmarks" in found else {}
    return pictures | ({"mass": mass_figure(found["mass"])} if "mass" in found else {})


def landmark_figure(found: Measured) -> Any:
    """The layout with both ways; steps to the goal without and with interruption."""
    figure, ((ax, left, right),) = subplots(1, 3, 4.9, 4.6)
    params = Landmarks().default_params.replace(landmarks=found["landmarks"], radius=found["radius"])
    Landmarks().draw(ax, params)
    colours = (VERMILION, BLUE)
    for path, steps, label, color, lw in zip(
        found["paths"], found["closest"], ("whole", "interrupted"), colours, (1, 2.4)
    ):
        ax.plot(*path.T, color=color, lw=lw, label=f"{label}: {steps} steps", zorder=3)
    ax.plot([0, SIDE], [0, SIDE], ":", color="0.5", lw=1, label=f"shortest: {BEST} steps")
    ax.legend(loc="lower right", fontsize=9)
    ax.set_title("seven landmarks and the circles of their controllers")
    worst = np.nanmax(found["before"])
    names = ("without interruption", "with interruption")
    for panel, values, name in zip((left, right), (found["before"], found["after"]), names):
        image = panel.imshow(values, origin="lower", extent=(0, SIDE, 0, SIDE), cmap="viridis_r", vmin=0, vmax=worst)
        panel.contour(values, levels=np.arange(0, worst, 50), extent=(0, SIDE, 0, SIDE), colors="white", linewidths=0.6)
        panel.set(title=f"steps to the goal {name}", aspect="equal")
        panel.grid(False)
    figure.colorbar(image, ax=[left, right], shrink=0.8, label="steps (blank: no controller may start)")
    return figure


def mass_figure(found: Measured) -> Any:
    """Velocity over position, a point for each step."""
    figure, ((ax,),) = subplots(1, 1, 6.4, 4.2)
    for name, label, color in (("whole", "whole", VERMILION), ("cut", "interrupted", BLUE)):
        steps = int(found[f"steps {name}"])
        path = found[name][: steps + 1]
        ax.plot(*path.T, "o-", ms=2.5, lw=1, color=color, label=f"{label}: {steps} steps")
    ax.plot(*found["switched at"], "s", mfc="none", color="black", ms=8, label="the controller to 1 is left")
    ax.set(xlabel="position", ylabel="velocity", title="a mass from rest at 0 to rest at 2", ylim=(0, 0.075))
    ax.legend(loc="upper left")
    return figure


FIGURE = Figure(
    name="options_interrupting",
    paper=SPS,
    shows="figures 7 and 8 (interrupting options)",
    parts=parts,
    rows=rows,
    draw=draw,
)
