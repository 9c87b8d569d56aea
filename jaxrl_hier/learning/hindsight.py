"""Hindsight experience replay (Andrychowicz et al., NeurIPS 2017): learn from a step as if for another goal.

A way to draw from the replay memory and no algorithm: `hindsight` is the `relabel` of the replay loop for any learner
from replay. Of a step t of an episode whose last state so far is T, with probability k / (k + 1),

    future   the goal becomes what state t' achieved, t' uniform on t + 1 … T
    final    … what the last state T achieved
    episode  … what a state t' achieved, t' uniform on 1 … T
    random   … what a state achieved that is drawn from the whole memory

and the reward is computed anew from the next state's achieved goal and the new goal. Otherwise the step stays as it
is.
In the paper's words every step is stored with its own goal and with k others; drawing the goal when the step is drawn
is what the authors' code does (github.com/openai/baselines), with fresh goals each time.

Episodes may have any lengths. One that is under way counts up to its newest step, and one whose first steps are
overwritten from the oldest that is left on. The start state of an episode is never a goal: it is what the environment
gave and not what was achieved. Steps are drawn uniformly, where the authors draw an episode first; for episodes of one
length that is the same.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrl_envs.goals import is_goal_env
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.replay import Places, Ring, following, located, preceding, read, shifted
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import Agent, Params, Tasks, Transition

Strategy = Literal["future", "final", "episode", "random"]
STRATEGIES: tuple[Strategy, ...] = ("future", "final", "episode", "random")


def goal_places(ring: Ring, places: Places, bits: jax.Array, strategy: Strategy) -> Places:
    """The steps [N] whose next achieved goals are to be wanted in the steps at `places`, by random `bits` [2, N]."""
    if strategy == "random":
        return located(ring, bits)
    after = following(ring, places)  # T − t − 1
    if strategy == "final":
        return shifted(ring, places, after)
    before = preceding(ring, places) if strategy == "episode" else jnp.zeros_like(after)
    steps = (bits[0] % (before + after + 1).astype(jnp.uint32)).astype(jnp.int32)
    return shifted(ring, places, steps - before)


def with_goal(t: Transition, goal: jax.Array, reward: jax.Array) -> Transition:
    """The steps [N], as they would be had `goal` [N, ...] been wanted."""
    want = lambda obs: {**obs, "desired_goal": goal}
    return t._replace(obs=want(t.obs), next_obs=want(t.next_obs), reward=reward)


TRIED = 32  # worlds and, at most, random steps in each that rewards are compared in


def require_computed_rewards(env: Any, tasks: Tasks) -> None:
    """UsageError where random steps are not paid `compute_reward`: a wrapper may change rewards and forward that."""
    if getattr(env, "on_host", False):
        return  # they are compared when the environment is made
    space = env.action_space(env.default_params)
    uniform = lambda params, carry, inp, key, greedy: (space.sample(key), carry, ())
    at_random = Agent(init=lambda key: (), start=lambda params, key: (), act=uniform)

    def differing() -> jax.Array:
        worlds = begin_worlds(env, at_random, tasks, (), jax.random.key(0), TRIED)
        _, seen = rollout(env, at_random, tasks, (), worlds, min(TRIED, tasks.time_limit()))
        task = tasks.sample(jax.random.key(0))  # as `hindsight` has it
        computed = jax.vmap(jax.vmap(lambda achieved, wanted: env.compute_reward(achieved, wanted, task)))
        paid = computed(seen.next_obs["achieved_goal"], seen.obs["desired_goal"])
        return jnp.mean(~jnp.isclose(paid, seen.reward, rtol=1e-4, atol=1e-5))

    share = float(jax.jit(differing).lower().compile()())  # may be asked for under a trace
    if share > 0.01:  # at the rim of a threshold rounding may decide otherwise
        raise UsageError(
            f"{env.name} pays what its compute_reward does not say in {share:.0%} of random steps, so that hindsight "
            "would learn from other rewards: a wrapper that changes rewards needs a compute_reward of its own"
        )


def hindsight(
    env: Any, tasks: Tasks, strategy: Strategy, k: int
) -> Callable[[Params, Ring, Places, jax.Array], Transition]:
    """The `relabel` of `loops.replay`: parameters, memory, places [N], key -> steps [N], partly with other goals.

    Args:
        k: goals in hindsight for each original one.

    Raises:
        UsageError: the environment has no goals, or there is no such strategy.
    """
    if not is_goal_env(env):
        raise UsageError(
            f"hindsight needs an environment with goals, such as bit-flipping-15 (see jaxrl_envs.goals); {env.name} "
            "has none"
        )
    if strategy not in STRATEGIES:
        raise UsageError(f"the strategies of hindsight are {', '.join(STRATEGIES)}; got {strategy!r}")
    task = jax.jit(tasks.sample)(jax.random.key(0))  # rewards follow from the goals: tasks differ in nothing else
    reward_of = jax.vmap(lambda *x: jnp.asarray(env.compute_reward(*x), jnp.float32), (0, 0, None))

    def relabel(params: Params, ring: Ring, places: Places, key: jax.Array) -> Transition:
        bits = jax.random.bits(key, (3, *places.slot.shape))  # one draw for all choices
        t = read(ring, places)
        source = goal_places(ring, places, bits[:2], strategy)
        achieved = ring.steps.next_obs["achieved_goal"][source]
        original = t.obs["desired_goal"]
        in_hindsight = bits[2].astype(jnp.float32) * 2.0**-32 < k / (k + 1)
        goal = jnp.where(in_hindsight.reshape(-1, *[1] * (original.ndim - 1)), achieved, original)
        return with_goal(t, goal, reward_of(t.next_obs["achieved_goal"], goal, task))

    return relabel
