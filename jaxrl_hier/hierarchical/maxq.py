"""MAXQ: the value function of a task graph, decomposed over its subtasks (Dietterich, JAIR 13, 2000).

Subtask i chooses a child a by Q̃(i, s, a) = V(a, s) + C̃(i, s, a), with Boltzmann exploration. When a child that ran
for N steps, starting in s_1, has ended in s', its caller updates the completion of the child in every state s_j of that
run, the last state first:

    a* = argmax_a' C̃(i, s', a') + V(a', s')
    C̃(i, s_j, a) += α [γ^(N+1-j) (R̃_i(s') + C̃(i, s', a*) + V(a*, s')) − C̃(i, s_j, a)]
    C (i, s_j, a) += α [γ^(N+1-j) (          C (i, s', a*) + V(a*, s')) − C (i, s_j, a)]
    V(a, s) += α [r − V(a, s)] for a primitive action a;   V(i, s) = V(a*, s) + C(i, s, a*) for a subtask i

Where s' is terminal for i, the pseudo-reward R̃ is all that follows. C̃, C and V of the primitive actions are stored; V
of a subtask is computed through the graph, with its state abstractions. This is MAXQ-Q with all-states updating; MAXQ-0
is the same without pseudo-rewards. The defaults are the author's settings for Taxi; without state abstraction α is 0.5.

The temperature of a subtask is multiplied by its cooling rate whenever it ends in a goal state. With polling (the
paper's hierarchical greedy execution) control returns to the root every L steps, and L decreases with each episode that
ends in a goal state. A child that is interrupted by polling or by the time limit leads to no update of its caller, and
neither does one that ends with the episode where the graph has its caller `interrupted`.

Departures, and choices where the paper leaves one:

- The target of an ended child is computed once, before the first of its updates, as in the author's code.
- The completion of a child is updated only in states in which the caller would have called the same child, parameter
  included. This matters where the parameter changes during the run, as with a fickle passenger.
- Instances of a parameterised subtask share one temperature, as in the author's code. It does not fall below 10⁻³.
- A subtask whose caller becomes terminal runs on until it ends itself.
- The greedy policy takes the first of equally good children; the author's code draws one.

An ended child needs as many updates as it took steps. So that vmapped runs need not wait for each other, all of them
share one loop: in each pass an environment makes up to `chunk` of its pending updates, after its next step if none was
pending.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.contract import name_of
from jaxrl_envs.random_bits import uniforms
from jaxrl_envs.resetting import select
from jaxrl_envs.tasks import number_of
from jaxrl_hier.abstractions.task_graph import TaskGraph
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive
from jaxrl_hier.engine.evaluation import of_worlds, play_first
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import ended, rollout
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    Average,
    Metrics,
    NamedArray,
    Tasks,
    TrainState,
    Transition,
    World,
)
from jaxrl_hier.hierarchical.graphs import rooms_graph, taxi_graph
from jaxrl_hier.learning.tables import boltzmann, table_sizes
from jaxrl_hier.settings import BaseConfig

COLD = 1e-3  # the lowest temperature


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of MAXQ. The defaults are the paper's for Taxi with state abstraction."""

    variant: Literal["maxq-q", "maxq-0"] = "maxq-q"
    """maxq-q: with pseudo-rewards; maxq-0: without"""
    state_abstraction: bool = True
    """use the state abstractions of the built-in task graphs, those of Taxi and four rooms"""
    step_size: float = 0.25
    """step size of all updates (α), in [0, 1]"""
    temperature: float = 50.0
    """initial temperature of the Boltzmann exploration (T), positive; cooling rates come from the task graph"""
    discount: float = 1.0
    """discount per step (γ), in [0, 1]"""
    initial_value: float = 0.123
    """initial value of every entry of C, C̃ and V"""
    all_states: bool = True
    """update a child's completion in all states that it ran in, not only in the one where it was called"""
    polling_interval: float = 500.0
    """steps after which control returns to the root (L), at least 1"""
    polling_interval_decrease: float = 0.0
    """by how much L decreases, down to 1, with each episode that ends in a goal state; at least 0"""
    rollout_length: int = 200
    """steps of each environment per iteration"""
    environments: int = 1
    """environments that share the tables; they update them one after the other"""
    history_length: int = 500
    """states of an episode that are kept; a longer run is updated in its last ones only, and without all-states
    updating not at all"""
    chunk: int = 8
    """updates of an environment per pass of the inner loop; affects the speed only"""
    eval_episodes: int = 64
    """greedy episodes of each environment's task per evaluation, with the current L"""
    eval_horizon: int = 500
    """steps after which an episode of an evaluation is cut"""

    renamed: ClassVar = {
        "abstraction": "state_abstraction",
        "interval": "polling_interval",
        "interval_step": "polling_interval_decrease",
        "steps": "rollout_length",
        "history": "history_length",
        "evaluation_episodes": "eval_episodes",
        "evaluation_steps": "eval_horizon",
    }


class Settings(NamedTuple):
    """The settings that every update uses and that may be traced."""

    step_size: jax.Array  # [] float32, α
    discount: jax.Array  # [] float32, γ
    polling_interval_decrease: jax.Array  # [] float32


class Values(NamedTuple):
    """The parameters: tables, and how they are acted upon."""

    completion: jax.Array  # [completions, 2] C̃ and C, side by side because they are read together
    reward: jax.Array  # [rewards] V of the primitive actions
    temperature: jax.Array  # [families] float32, of the subtasks' exploration
    interval: jax.Array  # [] float32, L


class Stack(NamedTuple):
    """The running subtasks, the root first: an agent's carry, and the extras of its transitions.

    [D] is the height of the graph; entries at `depth` and beyond are unused.
    """

    task: jax.Array  # [D] int32, the subtask
    slot: jax.Array  # [D] int32, which of its children it has called
    child: jax.Array  # [D] int32, the node that this child is
    start: jax.Array  # [D] int32, time of the call
    depth: jax.Array  # [] int32
    since: jax.Array  # [] int32, steps since control was at the root, this one included
    time: jax.Array  # [] int32, time of this step: 0 is the first of the episode


class Pending(NamedTuple):
    """The updates that are still to be made after an environment's last step."""

    stack: Stack  # of that step
    place: jax.Array  # [] int32, place on the stack of the caller whose child has ended; -1: nothing is pending
    done: jax.Array  # [] int32, states of the child's run that have been updated
    target: jax.Array  # [2] for C̃ and C, discounted to the last updated state
    arrived: jax.Array  # [] int32, s'
    terminated: jax.Array  # [] bool, whether the episode ended in s'


class Memory(NamedTuple):
    """`TrainState.memory` of each environment, [B]."""

    lesson: Pending
    history: jax.Array  # [history_length] int32, the episode's state at time t, stored at t modulo the length


# Values through the graph


class Evaluation(NamedTuple):
    """Value functions in one state: of all M subtasks (`evaluate_graph`), or of R rows (`evaluate_subtask`)."""

    value: jax.Array  # V(a, s), actions first; valid for subtasks that are not over
    q: jax.Array  # [M or R, K] Q(i, s, a); −∞ where a cannot be called
    inside: jax.Array  # [M or R, K] Q̃(i, s, a), likewise
    best: jax.Array  # [M or R] int32, the child a*


def evaluate_graph(graph: TaskGraph, values: Values, state: jax.Array) -> Evaluation:
    """V of all N nodes [N], Q and Q̃ of all M subtasks [M, K], in a state []."""
    actions, own, subtasks = graph.num_actions, graph.rows.own, np.arange(len(graph.slots))
    each = jax.vmap(lambda task: evaluate_subtask(graph, values, state, task))(subtasks)
    value = jnp.concatenate([each.value[0, :actions], each.value[subtasks, actions + 1 + own]])
    return Evaluation(value, *(x[subtasks, own] for x in each[1:]))


def evaluate_subtask(graph: TaskGraph, values: Values, state: jax.Array, task: jax.Array) -> Evaluation:
    """The values of a subtask [] in a state [], and of all subtasks that it may come to call there.

    These are the R rows of the graph's `Rows`, evaluated from the actions up. V [A + 1 + R] is that of the A actions,
    −∞ for children that cannot be called, and that of the R rows.
    """
    rows = graph.rows
    below = jnp.asarray(rows.below)[state, task]  # [R, K]
    completion = values.completion.at[jnp.asarray(rows.entry)[state, task]].get(mode="fill", fill_value=0.0)
    value = jnp.append(values.reward[jnp.asarray(graph.reward_entry)[state]], -jnp.inf)
    q, inside, best = [], [], []
    first = 0
    for count in rows.levels:
        level = slice(first, first + count)
        q.append(value[below[level]] + completion[level, :, 1])
        inside.append(value[below[level]] + completion[level, :, 0])
        slot, worth = _best(inside[-1], q[-1])
        best.append(slot)
        value, first = jnp.concatenate([value, worth]), first + count
    return Evaluation(value, *map(jnp.concatenate, (q, inside, best)))


def _best(by: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The index [...] of the first maximum of `by` [..., K], and `values` [..., K] there; an argmax without gathers."""
    slot, best, value = jnp.zeros(by.shape[:-1], jnp.int32), by[..., 0], values[..., 0]
    for k in range(1, by.shape[-1]):
        better = by[..., k] > best
        slot = jnp.where(better, k, slot)
        best, value = jnp.where(better, by[..., k], best), jnp.where(better, values[..., k], value)
    return slot, value


# The stack machine


def empty_stack(height: int) -> Stack:
    """The stack [D] before an episode's first step."""
    zeros, zero = jnp.zeros(height, jnp.int32), jnp.zeros((), jnp.int32)
    return Stack(task=zeros, slot=zeros, child=zeros, start=zeros, depth=zero, since=zero, time=zero - 1)


def remaining_depth(graph: TaskGraph, values: Values, stack: Stack, state: jax.Array) -> jax.Array:
    """How much of the stack remains in a state [], [] int32: ended subtasks leave it at the top, polling clears it."""
    over, depth = graph.terminal[state][stack.task], stack.depth
    for place in reversed(range(graph.height)):
        depth = jnp.where((depth == place + 1) & over[place], place, depth)
    return jnp.where(stack.since >= values.interval, 0, depth)


def choose_children(
    graph: TaskGraph, values: Values, state: jax.Array, task: jax.Array, key: jax.Array, greedy: bool
) -> jax.Array:
    """What a subtask [] would call in a state [], and what every subtask would that it may call in turn, [R, 3] int32.

    Of each row of the graph's `Rows`: the slot of the child, its node, and the row of the child (0 for an action).
    """
    rows, now = graph.rows, evaluate_subtask(graph, values, state, task)
    tasks, slots = rows.task[state, task], now.best
    if not greedy:
        temperature = jnp.maximum(values.temperature[graph.family[tasks]], COLD)
        slots = jax.vmap(boltzmann)(uniforms(key, len(graph.slots))[tasks], now.inside, temperature)
    called = rows.below[state, task, jnp.arange(len(slots)), slots]
    next_rows = jnp.maximum(called - graph.num_actions - 1, 0)
    nodes = jnp.where(called < graph.num_actions, called, graph.num_actions + tasks[next_rows])
    return jnp.stack([slots, nodes, next_rows], axis=1)


def call_children(
    graph: TaskGraph, before: Stack, depth: jax.Array, row: jax.Array, choices: jax.Array
) -> tuple[jax.Array, Stack]:
    """The action [] of a step, and the stack: from the top on subtasks call children, until a child is an action.

    Args:
        before: the stack of the previous step, of which `depth` [] entries remain.
        row: [] int32, the row of `choices` [R, 3] (`choose_children`) that the subtask on top takes.
    """
    top, time = jnp.maximum(depth - 1, 0), before.time + 1
    since = jnp.where(depth == 0, 1, before.since + 1)
    frames, task, action, acting = [], jnp.int32(len(graph.slots) - 1), jnp.int32(0), jnp.array(False)
    for place in range(graph.height):
        task = jnp.where(place <= top, before.task[place], task) if place else task
        calls = (place >= top) & ~acting
        slot, node, next_row = choices[row]
        new = (task, slot, node, time)
        old = (task, before.slot[place], before.child[place], before.start[place])
        frames.append([jnp.where(calls, x, y) for x, y in zip(new, old)])
        node = frames[-1][2]
        depth = jnp.where(calls, place + 1, depth)
        action = jnp.where(calls, node, action)
        acting |= calls & (node < graph.num_actions)
        task = jnp.maximum(node - graph.num_actions, 0)
        row = jnp.where(calls, next_row, row)
    tasks, slots, children, starts = map(jnp.stack, zip(*frames))
    return action, Stack(tasks, slots, children, starts, depth, since, time)


def act(
    graph: TaskGraph, values: Values, before: Stack, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[jax.Array, Stack, Stack]:
    """The `act` of the agent: an action [], and the stack as its carry and extras."""
    depth, root = remaining_depth(graph, values, before, inp.obs), len(graph.slots) - 1
    chooser = jnp.where(depth == 0, root, before.task[jnp.maximum(depth - 1, 0)])
    choices = choose_children(graph, values, inp.obs, chooser, key, greedy)
    action, stack = call_children(graph, before, depth, graph.rows.own[chooser], choices)
    return action, stack, stack


# Learning


def learn_reward(graph: TaskGraph, settings: Settings, values: Values, t: Transition, acted: jax.Array) -> Values:
    """V of the action of one transition moved towards its reward, where the environment has `acted` []."""
    at = jnp.where(acted, graph.reward_entry[t.obs, t.action], graph.rewards)  # out of bounds: dropped
    error = t.reward - values.reward.at[at].get(mode="fill", fill_value=0.0)
    return values._replace(reward=values.reward.at[at].add(settings.step_size * error, mode="drop"))


def pending_after(graph: TaskGraph, pending: Pending, t: Transition, acted: jax.Array) -> Pending:
    """The updates to make after one transition where the environment has `acted` [], else those still `pending`."""
    place = learning_place(graph, t.extras, t.extras.depth - 1, t.next_obs, t.terminated)
    new = Pending(t.extras, place, jnp.int32(0), pending.target, t.next_obs, t.terminated)
    return jax.tree.map(lambda x, old: jnp.where(acted, x, old), new, pending)


def learning_place(graph: TaskGraph, stack: Stack, place: Any, arrived: jax.Array, terminated: jax.Array) -> Any:
    """`place` [], or −1 for none where the episode has ended and its subtask is interrupted in the state `arrived`:
    then neither it nor its callers learn."""
    if graph.interrupted is None:
        return place
    return jnp.where(terminated & graph.interrupted[arrived, stack.task[place]], -1, place)


def completion_target(
    config: Config, graph: TaskGraph, settings: Settings, values: Values, pending: Pending
) -> jax.Array:
    """What follows the ended child in s', for C̃ and C, [2], not yet discounted.

    Without all-states updating it is discounted over all but the last of the child's steps, for the state of the call.
    """
    task, start = pending.stack.task[pending.place], pending.stack.start[pending.place]
    now, row = evaluate_subtask(graph, values, pending.arrived, task), graph.rows.own[task]
    best = now.best[row]
    following = jnp.stack([now.inside[row, best], now.q[row, best]])
    ending = jnp.stack([graph.pseudo_reward[pending.arrived, task], jnp.zeros(())])
    target = jnp.where(is_over(graph, pending), ending, following)
    if not config.all_states:
        target *= settings.discount ** (pending.stack.time - start)
    return target


def is_over(graph: TaskGraph, pending: Pending) -> jax.Array:
    """Whether the caller of the ended child is over in s' too, [] bool."""
    return pending.terminated | graph.terminal[pending.arrived, pending.stack.task[pending.place]]


def entries_to_update(
    config: Config, graph: TaskGraph, pending: Pending, history: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The next entries of C̃ and C to update, [chunk] int32, out of bounds for none; and [] bool, whether they finish.

    They are those of the child's last states first.

    Args:
        history: [history_length] int32, as in `Memory`.
    """
    stack, place = pending.stack, pending.place
    task, slot, node, start = (x[place] for x in stack[:4])
    before = pending.done + jnp.arange(config.chunk)
    steps = stack.time - start + 1
    if config.all_states:
        length, last = jnp.minimum(steps, config.history_length), stack.time
    else:  # the state of the call, unless it has been overwritten
        length, last = jnp.where(steps <= config.history_length, 1, 0), start
    states = history[(last - before) % config.history_length]
    used = (place >= 0) & (before < length) & (graph.child[states, task, slot] == node)
    entries = jnp.where(used, graph.entry[states, task, slot], graph.completions)
    return entries, (place >= 0) & (pending.done + config.chunk >= length)


def update_completion(
    completion: jax.Array, entries: jax.Array, target: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array]:
    """`completion` [completions, 2] with its `entries` [n] updated in order, and the target [2] of the last of them.

    An entry may occur several times, since states share entries. Each is discounted by one step more than the one
    before it.
    """
    for entry in entries:
        target = settings.discount * target
        old = completion.at[entry].get(mode="fill", fill_value=0.0)
        completion = completion.at[entry].add(settings.step_size * (target - old), mode="drop")
    return completion, target


def cool(graph: TaskGraph, settings: Settings, values: Values, pending: Pending, finished: jax.Array) -> Values:
    """The temperature and L after a caller's updates are `finished` []: lower where it ended in a goal state."""
    task = pending.stack.task[pending.place]
    family = graph.family[task]
    reached = finished & is_over(graph, pending) & graph.goal[pending.arrived, task]
    factor = jnp.where(reached, values.temperature[family] * graph.cooling[task], values.temperature[family])
    fall = jnp.where(reached & (pending.place == 0), settings.polling_interval_decrease, 0.0)
    return values._replace(
        temperature=values.temperature.at[family].set(factor), interval=jnp.maximum(values.interval - fall, 1.0)
    )


def learn(
    config: Config,
    graph: TaskGraph,
    settings: Settings,
    values: Values,
    memory: Memory,
    t: Transition,
    acted: jax.Array,
) -> tuple[Values, Pending]:
    """Up to `chunk` updates of one environment: of its transition where it `acted` [], else of what is pending."""
    values = learn_reward(graph, settings, values, t, acted)
    pending = pending_after(graph, memory.lesson, t, acted)
    start = completion_target(config, graph, settings, values, pending)
    entries, finished = entries_to_update(config, graph, pending, memory.history)
    target = jnp.where(pending.done == 0, start, pending.target)
    completion, target = update_completion(values.completion, entries, target, settings)
    values = cool(graph, settings, values._replace(completion=completion), pending, finished)
    # a caller that is over too is an ended child of the subtask below it on the stack
    below = learning_place(graph, pending.stack, pending.place - 1, pending.arrived, pending.terminated)
    place = jnp.where(finished, jnp.where(is_over(graph, pending), below, -1), pending.place)
    done = jnp.where(finished, 0, pending.done + config.chunk)
    return values, pending._replace(place=place, done=done, target=target)


# The algorithm


class Loop(NamedTuple):
    """What the loop within an iteration carries."""

    settings: Settings
    values: Values
    world: World  # [B]
    memory: Memory  # [B]
    taken: jax.Array  # [B] int32, steps of this iteration
    metrics: Metrics


def unfinished(config: Config, loop: Loop) -> jax.Array:
    """Whether any environment has steps to take or updates to make, [] bool."""
    return jnp.any((loop.taken < config.rollout_length) | (loop.memory.lesson.place >= 0))


def advance(
    config: Config, graph: TaskGraph, step: Callable[[Values, World], tuple[World, Transition]], loop: Loop
) -> Loop:
    """One pass: a step of every environment that has no pending updates, then up to `chunk` updates of each.

    Args:
        step: values, worlds [B] -> worlds after a step, transitions [1, B, ...].
    """
    settings, values, world, memory, taken, metrics = loop
    acts = (memory.lesson.place < 0) & (taken < config.rollout_length)  # [B]
    after, t = step(values, world)
    t = jax.tree.map(lambda x: x[0], t)
    slot = jnp.where(acts, t.extras.time % config.history_length, config.history_length)  # out of bounds: dropped
    history = jax.vmap(lambda h, at, state: h.at[at].set(state, mode="drop"))(memory.history, slot, t.obs)

    def one(values: Values, row: Any) -> tuple[Values, Pending]:
        return learn(config, graph, settings, values, *row)

    rows = (Memory(memory.lesson, history), t, acts)
    values, pending = jax.lax.scan(one, values, rows, unroll=config.environments == 1)
    done = acts & ended(t)
    episode = {"return": world.ep_return + t.reward, "episode_length": world.ep_length + 1}
    metrics = {
        name: Average(m.total + jnp.sum(episode[name] * done), m.count + jnp.sum(done)) for name, m in metrics.items()
    }
    world = jax.vmap(select)(acts, after, world)
    return Loop(settings, values, world, Memory(pending, history), taken + acts, metrics)


def init_values(config: Config, graph: TaskGraph) -> Values:
    """The parameters before learning."""
    return Values(
        completion=jnp.full((graph.completions, 2), config.initial_value, jnp.float32),
        reward=jnp.full(graph.rewards, config.initial_value, jnp.float32),
        temperature=jnp.full(int(graph.family.max()) + 1, config.temperature, jnp.float32),
        interval=jnp.full((), config.polling_interval, jnp.float32),
    )


def init_memory(config: Config, graph: TaskGraph) -> Memory:
    """The memory of all environments [B] before their first step."""
    zero = jnp.zeros((), jnp.int32)
    pending = Pending(empty_stack(graph.height), zero - 1, zero, jnp.zeros(2), zero, jnp.array(False))
    memory = Memory(pending, jnp.zeros(config.history_length, jnp.int32))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (config.environments, *x.shape)), memory)


def make(config: Config, env: Any, tasks: Tasks, graph: TaskGraph | None = None) -> Algorithm:
    """MAXQ on an environment with Discrete observations and actions; parameters: `Values`.

    Args:
        graph: the task graph; None: the built-in one of Taxi or of four rooms.

    Raises:
        UsageError: a setting that cannot work, an environment without such spaces or without a graph, or a graph that
            does not fit it.
    """
    check(config)
    with jax.ensure_compile_time_eval():  # under a trace too, as in a sweep over traced settings
        checked = graph_of(config, env, tasks, graph)
        tables = with_jax_arrays(checked, pseudo_rewards=config.variant == "maxq-q")
        nothing = empty_stack(tables.height)
    agent = Agent(
        init=lambda key: init_values(config, checked),
        start=lambda values, key: nothing,
        act=partial(act, tables),
    )

    def advance_all(loop: Loop) -> Loop:
        return advance(config, tables, lambda values, world: rollout(env, agent, tasks, values, world, 1), loop)

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        settings = Settings(*(jnp.float32(getattr(config, name)) for name in Settings._fields))
        none = Average(jnp.zeros(()), jnp.zeros((), jnp.int32))
        taken = jnp.zeros(config.environments, jnp.int32)
        metrics = {"return": none, "episode_length": none}
        loop = Loop(settings, state.params, state.world, state.memory, taken, metrics)
        loop = _while(partial(unfinished, config), advance_all)(loop)
        state = replace(state, params=loop.values, world=loop.world, memory=loop.memory, iteration=state.iteration + 1)
        return state, loop.metrics

    def init(key: jax.Array, params: Any = None) -> TrainState:
        key, key_values, key_world = jax.random.split(key, 3)
        values = agent.init(key_values) if params is None else params
        return TrainState(
            params=values,
            learner=(),
            world=begin_worlds(env, agent, tasks, values, key_world, config.environments),
            memory=init_memory(config, checked),
            key=key,
            iteration=jnp.zeros((), jnp.int32),
        )

    return Algorithm(
        init=init,
        step=step,
        evaluate=partial(evaluate, config, env, agent, tasks),
        agent=agent,
        env_steps=config.environments * config.rollout_length,
    )


def evaluate(
    config: Config, env: Any, agent: Agent, tasks: Tasks, state: TrainState, key: jax.Array
) -> dict[str, NamedArray]:
    """Greedy episodes without learning, from the start of each environment's task, or of each held-out task where there
    are some, with the current L.

    Returns:
        "return" and "steps" [environment or task, episode], both up to `eval_horizon`, and "ended": whether the task
        ended.
    """

    def add(terminated: jax.Array, t: Transition, on: jax.Array) -> jax.Array:
        return terminated | (on & t.terminated)

    def measure(task: Any, key: jax.Array) -> dict[str, jax.Array]:
        only, never = Tasks(sample=lambda _: task), jnp.zeros(config.eval_episodes, bool)
        worlds = begin_worlds(env, agent, only, state.params, key, config.eval_episodes)
        episodes, terminated = play_first(
            env, agent, only, state.params, worlds, add, never, horizon=config.eval_horizon
        )
        return {"return": episodes.returns, "steps": episodes.lengths, "ended": terminated}

    axis, those = of_worlds(tasks, state.world)
    measured = jax.vmap(measure)(those, jax.random.split(key, number_of(those)))
    return {name: NamedArray(values, (axis, "episode")) for name, values in measured.items()}


def check(config: Config) -> None:
    """Raises UsageError for settings that cannot work."""
    require_choice(config, "variant", ("maxq-q", "maxq-0"))
    require_fraction(config, "step_size", "discount")
    require_positive(config, "temperature", "rollout_length", "environments", "history_length", "chunk")
    require_positive(config, "polling_interval", "eval_episodes", "eval_horizon")
    require_positive(config, "polling_interval_decrease", or_zero=True)
    if isinstance(config.polling_interval, (int, float)) and config.polling_interval < 1:
        raise UsageError(f"polling_interval must be at least 1, got {config.polling_interval}")


def graph_of(config: Config, env: Any, tasks: Tasks, graph: TaskGraph | None = None) -> TaskGraph:
    """The given graph, or the environment's own; UsageError where there is none or it does not fit."""
    sizes = table_sizes(env)
    if graph is None:
        from jaxrl_envs.four_rooms import FourRooms
        from jaxrl_envs.taxi import Taxi

        if isinstance(env, Taxi):
            graph = taxi_graph(env, config.state_abstraction)
        elif isinstance(env, FourRooms):
            if tasks.resample != "never":
                raise UsageError(
                    "the task graph of four rooms is built for one goal: use tasks that are never resampled"
                )
            graph = rooms_graph(env, int(tasks.sample(jax.random.key(0)).goal), config.state_abstraction)
        else:
            raise UsageError(
                f"MAXQ needs a task graph, and {name_of(env)} has none of its own: make one by `task_graph` and give "
                "it as the last argument of `make`"
            )
    if (found := graph.reward_entry.shape) != sizes:
        raise UsageError(f"the graph has (states, actions) = {found}, {name_of(env)} has {sizes}")
    return graph


def with_jax_arrays(graph: TaskGraph, pseudo_rewards: bool = True) -> TaskGraph:
    """The graph with JAX arrays, which traced numbers can index; without pseudo-rewards these are 0.

    Where it interrupts nothing `interrupted` is None, since looking it up in every step slows learning down.
    """
    arrays: Any = lambda parts: {
        name: jnp.asarray(x) for name, x in parts._asdict().items() if isinstance(x, np.ndarray)
    }
    if not np.any(graph.interrupted):
        graph = graph._replace(interrupted=None)
    graph = graph._replace(pseudo_reward=graph.pseudo_reward * pseudo_rewards)
    return graph._replace(**arrays(graph), rows=graph.rows._replace(**arrays(graph.rows)))


def _while(unfinished: Callable[[Any], jax.Array], step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`jax.lax.while_loop`, for a `step` that leaves a finished run unchanged.

    A vmap of the ordinary loop also runs until the last run has finished, but in each step it selects between the old
    and the new state of every run, tables included. Here `step` sees to that.
    """

    @jax.custom_batching.custom_vmap
    def run(state: Any) -> Any:
        return jax.lax.while_loop(lambda state: jnp.any(unfinished(state)), step, state)

    @run.def_vmap
    def run_batched(size: int, batched: Any, state: Any) -> Any:
        spread = lambda is_batched, x: x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
        state = jax.tree.map(spread, batched[0], state)
        return _while(jax.vmap(unfinished), jax.vmap(step))(state), jax.tree.map(lambda _: True, state)

    return run
