"""Hindsight experience replay (Andrychowicz et al., NeurIPS 2017): relabel steps with goals that were achieved.

HER changes how batches are sampled, so it combines with any replay learner: `hindsight` returns the `relabel` function
of the replay loop. With probability k / (k + 1) it replaces the desired goal of step t by the achieved goal of

    future   state t', t' uniform on t + 1 … T, where T is the last state of the episode stored so far
    final    state T
    episode  state t', t' uniform on 1 … T
    random   a state sampled uniformly from the whole buffer

and recomputes the reward from the next state's achieved goal and the new goal. Other steps are left unchanged. The
paper describes storing every step with its own goal and k others; like the authors' code (github.com/openai/baselines)
we relabel when a step is sampled, with new goals each time.

Episodes may differ in length. An unfinished episode counts up to its newest step, and a partly overwritten one from
its oldest remaining step. An episode's initial state is never used as a goal, since the agent did nothing to reach it.
We sample steps uniformly, the authors sample episodes first; the two agree when all episodes have one length.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.boxes import accepted
from jaxrl_envs.contract import Played, Step, name_of, on_host
from jaxrl_envs.goals import is_goal_env, with_goal
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.loops import random_rollout
from jaxrl_hier.engine.replay import Places, Ring, following, located, next_obs, preceding, read, shifted
from jaxrl_hier.engine.types import Params, Tasks, Transition

Strategy = Literal["future", "final", "episode", "random"]
STRATEGIES: tuple[Strategy, ...] = ("future", "final", "episode", "random")


def goal_places(ring: Ring, places: Places, bits: jax.Array, strategy: Strategy) -> Places:
    """The steps [N] whose next achieved goals replace the goals of the steps at `places`, by random `bits` [2, N]."""
    if strategy == "random":
        return located(ring, bits)
    after = following(ring, places)  # T − t − 1
    if strategy == "final":
        return shifted(ring, places, after)
    before = preceding(ring, places) if strategy == "episode" else jnp.zeros_like(after)
    steps = (bits[0] % (before + after + 1).astype(jnp.uint32)).astype(jnp.int32)
    return shifted(ring, places, steps - before)


def relabelled(t: Transition, goal: jax.Array, reward: jax.Array) -> Transition:
    """The steps [N] with desired goals `goal` [N, ...] and rewards `reward` [N]."""
    replaced = lambda obs: {**obs, "desired_goal": goal}
    return t._replace(obs=replaced(t.obs), next_obs=replaced(t.next_obs), reward=reward)


TRIED = 32  # number of worlds, and maximum number of random steps in each, to compare rewards in


def require_computed_rewards(env: Any, tasks: Tasks) -> None:
    """Raises UsageError where `compute_reward` disagrees with the rewards of random steps, as it does behind a reward
    wrapper. Steps that achieve the goal are rare, so they are compared separately."""
    if on_host(env):
        return  # a host environment is checked when it is made
    close = lambda a, b: jnp.isclose(a, b, rtol=1e-4, atol=1e-5)
    length = min(TRIED, tasks.time_limit())

    def differing() -> jax.Array:
        seen = random_rollout(env, tasks, TRIED, length)
        yes = jnp.ones_like(seen.terminated)
        found = [(seen.next_obs["achieved_goal"], seen.obs["desired_goal"], seen.reward, yes, yes)]
        if _has_goal(tasks):
            on, _, there = _random_steps(env, tasks)
            found.append((there.obs["achieved_goal"], there.obs["desired_goal"], there.reward, on, jnp.zeros_like(on)))
        flat = lambda *xs: jnp.concatenate([x.reshape(-1, *x.shape[2:]) for x in xs])
        achieved, wanted, paid, on, own_goal = jax.tree.map(flat, *found)
        task = tasks.sample(jax.random.key(0))  # the task that `hindsight` uses
        computed = jax.vmap(lambda achieved, wanted: env.compute_reward(achieved, wanted, task))
        rewards = computed(achieved, wanted)
        at_goal = on & close(rewards, computed(achieved, achieved))
        share = lambda among: jnp.sum(~close(paid, rewards) & among) / jnp.maximum(jnp.sum(among), 1)
        return jnp.stack([share(own_goal), share(at_goal)])

    shares = np.asarray(jax.jit(differing).lower().compile()())  # compiled explicitly: we may be inside a trace
    for share, of in zip(shares, ("random steps", "random steps that achieve the goal")):
        if share > 0.01:  # rounding may flip a reward right at a threshold
            raise UsageError(
                f"rewards of {name_of(env)} differ from its compute_reward in {share:.0%} of {of}, so hindsight would "
                "learn from wrong rewards: a wrapper that changes rewards must define its own compute_reward"
            )


def rewards_of_goals(env: Any, tasks: Tasks) -> tuple[float, float]:
    """The lowest and the highest reward of TRIED random steps in TRIED worlds, with their own goals and with those that
    the step, and the last one, achieve."""
    length = min(TRIED, tasks.time_limit())

    def of_steps() -> jax.Array:
        seen = random_rollout(env, tasks, TRIED, length)
        task = tasks.sample(jax.random.key(0))  # the task that `hindsight` uses
        achieved = jnp.concatenate([seen.obs["achieved_goal"], seen.next_obs["achieved_goal"]])
        wanted = jnp.concatenate([seen.obs["desired_goal"], seen.next_obs["desired_goal"]])
        of = jax.vmap(jax.vmap(lambda achieved, goal: env.compute_reward(achieved, goal, task)))
        last = jnp.broadcast_to(achieved[-1:], achieved.shape)
        rewards = jnp.stack([of(achieved, goal) for goal in (wanted, achieved, last)])
        return jnp.stack([jnp.min(rewards), jnp.max(rewards)])

    low, high = np.asarray(jax.jit(of_steps).lower().compile()())  # compiled explicitly: we may be inside a trace
    return float(low), float(high)


def require_ends_independent_of_goals(env: Any, tasks: Tasks) -> None:
    """Raises UsageError where the goal decides whether a step ends the episode: with goals in hindsight such ends would
    be missing."""
    if on_host(env) or not _has_goal(tasks):
        return

    def ends_differ() -> jax.Array:
        _, seen, there = _random_steps(env, tasks)
        return jnp.any(there.terminated != seen.terminated)

    if jax.jit(ends_differ).lower().compile()():
        raise UsageError(
            f"the goal decides where episodes of {name_of(env)} end, and for other goals, in hindsight, such ends "
            "would be missing: let episodes go on to their time limit"
        )


def _has_goal(tasks: Tasks) -> bool:
    return hasattr(jax.eval_shape(tasks.sample, jax.random.key(0)), "goal")


def _random_steps(env: Any, tasks: Tasks) -> tuple[jax.Array, Step, Step]:
    """Random steps in TRIED worlds, all [world, step]: whether the episode has not ended before, the steps, and the
    same steps with another goal: what the step achieves, where params hold goals in that form, or else another task's.
    """
    played, space = Played(env), env.action_space(env.default_params)

    def of_world(key: jax.Array) -> tuple[Step, Step]:
        key_task, key_other, key_reset, key = jax.random.split(key, 4)
        task, other = tasks.sample(key_task), tasks.sample(key_other)

        def step(state: Any, key: jax.Array) -> tuple[Any, tuple[Step, Step]]:
            key_action, key_step = jax.random.split(key)
            action = accepted(env, task, space.sample(key_action))
            seen = played.step(key_step, state, action, task)
            goal, achieved = jnp.asarray(other.goal), seen.obs["achieved_goal"]
            same_form = (goal.shape, goal.dtype) == (achieved.shape, achieved.dtype)
            there = with_goal(task, achieved if same_form else goal)
            elsewhere = played.step(key_step, state, action, there)
            bare = lambda step: step._replace(state=(), info={})
            return seen.state, (bare(seen), bare(elsewhere))

        return jax.lax.scan(step, played.reset(key_reset, task)[1], jax.random.split(key, TRIED))[1]

    seen, there = jax.vmap(of_world)(jax.random.split(jax.random.key(0), TRIED))
    ended = (seen.terminated | seen.truncated).astype(jnp.int32)
    return jnp.cumsum(ended, axis=1) == ended, seen, there


def hindsight(
    env: Any, tasks: Tasks, strategy: Strategy, k: int
) -> Callable[[Params, Ring, Places, jax.Array], Transition]:
    """The `relabel` of `loops.learning_from_memory`: parameters, replay buffer, places [N], key -> steps [N], some of
    them relabelled.

    Args:
        k: relabelled steps per step with its original goal, on average.

    Raises:
        UsageError: the environment has no goals, or the strategy is unknown.
    """
    if not is_goal_env(env):
        raise UsageError(
            "hindsight needs an environment with goals, such as bit-flipping-15 (see jaxrl_envs.goals); "
            f"{name_of(env)} has none"
        )
    if strategy not in STRATEGIES:
        raise UsageError(f"the strategies of hindsight are {', '.join(STRATEGIES)}; got {strategy!r}")
    task = jax.jit(tasks.sample)(jax.random.key(0))  # any task will do: rewards depend on the goals only
    reward_of = jax.vmap(lambda *x: jnp.asarray(env.compute_reward(*x), jnp.float32), (0, 0, None))

    def relabel(params: Params, ring: Ring, places: Places, key: jax.Array) -> Transition:
        bits = jax.random.bits(key, (3, *places.slot.shape))  # one call for all random choices
        t = read(ring, places)
        source = goal_places(ring, places, bits[:2], strategy)
        achieved = next_obs(ring, source)["achieved_goal"]
        original = t.obs["desired_goal"]
        in_hindsight = bits[2].astype(jnp.float32) * 2.0**-32 < k / (k + 1)
        goal = jnp.where(in_hindsight.reshape(-1, *[1] * (original.ndim - 1)), achieved, original)
        return relabelled(t, goal, reward_of(t.next_obs["achieved_goal"], goal, task))

    return relabel
