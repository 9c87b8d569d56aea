"""What sub-policies that many tasks share are worth to a learner of a new one: MLSH (Frans et al., 2018) on Four Rooms
with a hidden goal, beside a master over random sub-policies and flat PPO from scratch.

A task is a goal that the observation does not show, and an episode at most 50 steps from the upper left corner; its
return is 1 if it enters the goal, and 0 otherwise. MLSH trains on 82 goals and is tested on the other 21. On each of
these a new master learns with the sub-policies fixed, from 16 episodes in every update. The second learner has the same
masters over sub-policies as they were before training. The third is PPO, which learns a policy of actions from as many
steps. Actions are drawn as in training, and an update's return is that of the episodes that it learns from.

Settings were chosen on another seed, PPO's learning rate on training goals. The paper has no such experiment: its four
rooms show other quantities, and its curves are in pictures alone.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl_envs.four_rooms import FourRooms, hidden_goal_tasks
from jaxrl_envs.tasks import EnvParams, Tasks
from jaxrl_hier.engine.rollout import first_episode, play_episodes
from jaxrl_hier.engine.types import Agent
from jaxrl_hier.exact.hidden_goal import search_values
from jaxrl_hier.flat import policy_gradient
from jaxrl_hier.learning.minibatches import descent, in_minibatches
from jaxrl_hier.learning.optimization import apart, clipped

from ..drawing import BLACK, seeds_and_mean, subplots
from ..figure import Computation, Figure, Found, Scale, Training
from ..results import Row

LIMIT, EPISODES, GOALS, UPDATES = 50, 16, 21, 30  # steps; environments of an update; test goals; updates on each
ITERATIONS = 60
SETTINGS: dict[str, Any] = {
    "num_sub_policies": 4,
    "steps_per_choice": 10,
    "episodes_per_task": EPISODES,
    "warmup_updates": 5,
    "joint_updates": 5,
    "minibatch_size": 400,
    "eval_tasks": GOALS,
    "eval_updates": UPDATES,
}
FLAT: dict[str, Any] = {"minibatch_size": 400, "learning_rate": 1e-2, "entropy_weight": 0.01}
MLSH, RANDOM, PPO, KNOWING = "MLSH", "random sub-policies", "PPO from scratch", "knows the goal"
LEARNERS = (MLSH, RANDOM, PPO)
SHOWN = (0, 1, 3, 10, 30)  # updates


def rooms() -> tuple[FourRooms, Tasks]:
    """Four Rooms, and its tasks, each held-out goal once among those for the test."""
    env = FourRooms()
    return env, hidden_goal_tasks(env, limit=LIMIT, repeat=1)


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    small = {"eval_tasks": 2, "eval_updates": 3, "meta_batch_size": 2, "hidden": (8,)} if smoke else {}
    trained = partial(Training, "mlsh", SETTINGS | small, env=rooms()[0], tasks=rooms()[1])
    goals, updates = (2, 3) if smoke else (GOALS, UPDATES)
    return {
        MLSH: trained(
            iterations=2 if smoke else ITERATIONS, logged=("return", "return_before"), log_every=1 if smoke else 5
        ),
        RANDOM: trained(iterations=0),
        PPO: Computation(from_scratch, {"goals": goals, "updates": updates, **FLAT}),
        KNOWING: Computation(knowing, {"goals": goals}, seeds=0),
    }


def from_scratch(seeds: Sequence[int], goals: int, updates: int, **settings: Any) -> dict[str, np.ndarray]:
    """Returns of PPO on test tasks, [seeds, 1, updates + 1], means over the tasks, each of which it learns anew."""
    env, tasks = rooms()
    config = policy_gradient.Config(environments=EPISODES, rollout_length=LIMIT, **settings)
    net = policy_gradient.networks(config, env)
    agent = Agent(net.init, lambda params, key: (), partial(policy_gradient.act, config, net))
    rule = apart(clipped(config, optax.adam(config.learning_rate, eps=1e-5)))
    step = descent(partial(policy_gradient.loss, config, net), rule, 1.0)

    def learn(task: EnvParams, key: jax.Array) -> jax.Array:
        def update(state: Any, keys: jax.Array) -> tuple[Any, jax.Array]:
            t = play_episodes(env, agent, task, state[0], keys[0], episodes=EPISODES, horizon=LIMIT)
            batch = policy_gradient.batch_of(config, net, state[0], t)
            state, _ = in_minibatches(step, state, batch, keys[1], epochs=config.epochs, size=config.minibatch_size)
            return state, jnp.mean(jnp.sum(t.reward * first_episode(t), axis=0))

        key_params, key_updates = jax.random.split(key)
        params = net.init(key_params)
        return jax.lax.scan(update, (params, rule.init(params)), jax.random.split(key_updates, (updates + 1, 2)))[1]

    test = tasks.test_batch(goals, jax.random.key(0))
    of_seed = lambda key: jnp.mean(jax.vmap(learn)(test, jax.random.split(key, goals)), axis=0)
    returns = jax.lax.map(of_seed, jnp.stack([jax.random.key(seed) for seed in seeds]))
    return {"return": np.asarray(returns)[:, None]}


def knowing(goals: int) -> dict[str, np.ndarray]:
    """The return of the best play that knows the goal, the mean over the test goals."""
    env, tasks = rooms()
    P, start = env.transitions.astype(np.float32), int(env.default_params.start)
    cells = np.asarray(tasks.test_batch(goals, jax.random.key(0)).goal)
    return {"return": np.array(np.mean([search_values(P, cells[i : i + 1], start, LIMIT)[0] for i in range(goals)]))}


# Rows


def at_the_end(found: Found, name: str) -> np.ndarray:
    """Returns after 0, 1, … updates on new tasks, [seeds, updates + 1]."""
    return found[name]["return"][:, -1]


def rows(found: Found) -> list[Row]:
    made = []
    exact = float(found[KNOWING]["return"]) if KNOWING in found else None
    there = [name for name in LEARNERS if name in found]
    for name in there:
        returns = at_the_end(found, name)
        for k in [k for k in SHOWN if k < returns.shape[1]]:
            label = f"{name}: return after {k} updates"
            made.append(Row.measured(label, returns[:, k], exact=exact, bounds=(0.0, 1.0)))
    if MLSH in there:
        ours = at_the_end(found, MLSH)
        made.append(Row.measured("claim: MLSH's gain from its updates", ours[:, -1] - ours[:, 0]).judged("above 0"))
        for name in (name for name in (RANDOM, PPO) if name in there):
            for k in [k for k in SHOWN if k < ours.shape[1]]:
                label = f"claim: MLSH minus {name}, return after {k} updates"
                made.append(Row.measured(label, ours[:, k], at_the_end(found, name)[:, k]).judged("above 0"))
    if exact is not None:
        made.append(Row.computed(f"{KNOWING}: return", exact))
    return made


# Picture


def draw(found: Found) -> dict[str, Any]:
    """Return against updates on new tasks; and while MLSH learns, before and after the updates on a task."""
    figure, (axes,) = subplots(1, 2, width=5.0)
    for name in LEARNERS:
        if name in found:
            returns = at_the_end(found, name)
            seeds_and_mean(axes[0], np.arange(returns.shape[1]), returns, name)
    if KNOWING in found:
        axes[0].axhline(float(found[KNOWING]["return"]), color=BLACK, ls="--", lw=1, label=KNOWING)
    axes[0].set(xlabel="updates on a new task", ylabel="return: share that enters the goal in time", title="new tasks")
    if MLSH in found:
        x = found[MLSH]["logged env_steps"] / 1e6
        seeds_and_mean(axes[1], x, found[MLSH]["logged return"], MLSH, "MLSH, last update on a task")
        seeds_and_mean(axes[1], x, found[MLSH]["logged return_before"], MLSH, "MLSH, first rollout on a task", ":")
    axes[1].set(xlabel="million steps of training", title="training tasks")
    for ax in axes:
        ax.set(ylim=(0, 1.03))
        ax.legend(loc="best")
    return {"": figure}


FIGURE = Figure(
    name="mlsh_hidden_goals",
    paper="none: Frans et al. (2018)",
    shows="MLSH: return against updates on new goals of Four Rooms, beside random sub-policies and flat PPO",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=5,
    minutes=15,
)
