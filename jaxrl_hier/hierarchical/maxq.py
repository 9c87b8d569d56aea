"""MAXQ: learning the value function of every subtask of a task graph (Dietterich, JAIR 13, 2000).

A subtask i chooses among its children a by Q̃(i, s, a) = V(a, s) + C̃(i, s, a), with Boltzmann exploration. When a
child that took N steps from s_1 has ended in s', its caller learns for each state s_j in which it ran, the last first:

    a* = argmax_a' C̃(i, s', a') + V(a', s')
    C̃(i, s_j, a) += α [γ^(N+1-j) (R̃_i(s') + C̃(i, s', a*) + V(a*, s')) − C̃(i, s_j, a)]
    C (i, s_j, a) += α [γ^(N+1-j) (          C (i, s', a*) + V(a*, s')) − C (i, s_j, a)]
    V(a, s) += α [r − V(a, s)] for an action a;   V(i, s) = V(a*, s) + C(i, s, a*), a* by C̃, for a subtask

The sums in s' are 0 where i is over there (R̃ remains). C̃ and C, and V of the actions, are all that is stored: V of
subtasks is evaluated through the graph, with its state abstractions. This is MAXQ-Q with all-states updating; MAXQ-0 is
the same without pseudo-rewards. The author's settings for Taxi are the defaults; without abstraction α is .5.

A subtask's temperature is multiplied by its cooling rate whenever it ends in a goal state. Hierarchical greedy
execution (`polling_interval`): after L steps control goes back to the root; L falls with each episode that ends in a
goal. A child that is interrupted so, or by the time limit, teaches its caller nothing.

What the paper leaves open, and what is done here:

- the target of an ended child is computed once, before the first of its updates, as in the author's code;
- a child is learned about in the states in which its caller would have called the same, parameter included. That makes
  a difference where the parameter changes underneath, with a fickle passenger;
- instances of one parameterised subtask share a temperature, as in his code; below 10⁻³ exploration is over;
- the end of a caller does not interrupt its children;
- of ties, the greedy policy takes the first child. His code draws one.

All runs of a vmap are one program in which none waits for another: a subtask that ends makes as many updates as it had
steps, and a run takes its next step when they are done. A tick of the program makes up to `chunk` of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.random_bits import uniforms
from jaxrl_envs.resetting import select
from jaxrl_hier.abstractions.task_graph import TaskGraph
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import ended, first_episode, play_episodes, rollout
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

COLD = 1e-3  # temperatures do not fall below


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of MAXQ. The defaults are the paper's for Taxi with state abstraction."""

    variant: Literal["maxq-q", "maxq-0"] = "maxq-q"
    """with pseudo-rewards, or without"""
    state_abstraction: bool = True
    """whether the graphs of Taxi and of four rooms use their state abstractions"""
    step_size: float = 0.25
    """α"""
    temperature: float = 50.0
    """T of the Boltzmann exploration at the beginning; how it cools is said by the graph"""
    discount: float = 1.0
    """γ"""
    initial_value: float = 0.123
    """of every entry of C and V"""
    all_states: bool = True
    """learn for all states in which a child was running, not only for that in which it was called"""
    polling_interval: float = 500.0
    """L, the steps after which control returns to the root"""
    polling_interval_decrease: float = 0.0
    """by how much L falls with each episode that ends in a goal, down to 1; the paper's greedy execution: 1"""
    rollout_length: int = 200
    """steps of each environment per iteration"""
    environments: int = 1
    """environments that feed the one set of tables; what they bring is learned from in turn"""
    history_length: int = 500
    """a subtask that ends is learned about for its last so many states at most"""
    chunk: int = 8
    """updates that a run makes at a time; changes nothing but the speed"""
    eval_episodes: int = 64
    """greedy episodes in an evaluation, with the current L"""
    eval_horizon: int = 500
    """after which such an episode is cut"""

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
    """Those of `Config` that may be traced and are used in every step."""

    step_size: jax.Array
    discount: jax.Array
    polling_interval_decrease: jax.Array


class Values(NamedTuple):
    """What is learned, and how it is acted upon."""

    completion: jax.Array  # [completions, 2] C̃ and C, side by side since they are read together
    reward: jax.Array  # [rewards] V of the actions
    temperature: jax.Array  # [families]
    interval: jax.Array  # [] float32, L


class Stack(NamedTuple):
    """The running subtasks, the root first; an agent's carry, and what `act` returns beside the action. [D] is the
    graph's height; places from `depth` on hold nothing."""

    task: jax.Array  # [D] int32, the subtask
    slot: jax.Array  # [D] int32, which of its children it called
    child: jax.Array  # [D] int32, the node that this was
    start: jax.Array  # [D] int32, the episode's time at the call
    depth: jax.Array  # [] int32
    since: jax.Array  # [] int32, steps since control was at the root, this one included
    time: jax.Array  # [] int32, of this step in the episode, from 0


class Lesson(NamedTuple):
    """What remains to be learned of an environment's last step."""

    stack: Stack
    place: jax.Array  # [] int32, the caller on the stack that learns of the end of its child; -1: nothing remains
    done: jax.Array  # [] int32, how many of that child's states are done with
    target: jax.Array  # [2] for C̃ and C, discounted up to the last of them
    arrived: jax.Array  # [] int32, s'
    terminated: jax.Array  # [] bool


class Memory(NamedTuple):
    """What each environment has to remember, [B] in `TrainState.memory`."""

    lesson: Lesson
    history: jax.Array  # [history] int32, the states of the episode, at their time modulo the length


class Evaluation(NamedTuple):
    """Value functions in one state: `evaluate_graph`'s of all M subtasks, `evaluate_subtask`'s of R rows."""

    value: jax.Array  # V(a, s), actions first; of subtasks that are not over
    q: jax.Array  # [M or R, K] Q(i, s, a); −∞ where a can not be called
    inside: jax.Array  # [M or R, K] Q̃(i, s, a), likewise
    best: jax.Array  # [M or R] int32, a*


def evaluate_graph(graph: TaskGraph, values: Values, state: jax.Array) -> Evaluation:
    """V of all nodes [N], Q and Q̃ of all subtasks [M] in a state []."""
    actions, own, subtasks = graph.num_actions, graph.rows.own, np.arange(len(graph.slots))
    each = jax.vmap(lambda task: evaluate_subtask(graph, values, state, task))(subtasks)
    value = jnp.concatenate([each.value[0, :actions], each.value[subtasks, actions + 1 + own]])
    return Evaluation(value, *(x[subtasks, own] for x in each[1:]))


def evaluate_subtask(graph: TaskGraph, values: Values, state: jax.Array, task: jax.Array) -> Evaluation:
    """The same for one subtask [] and what it may come to in that state: for the graph's `Rows`, from the actions up.

    V is that of the A actions, −∞ for what can not be called, and that of the R rows.
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
    """The first maximum along the last axis of `by`, and what `values` holds there; an argmax without gathers."""
    slot, best, value = jnp.zeros(by.shape[:-1], jnp.int32), by[..., 0], values[..., 0]
    for k in range(1, by.shape[-1]):
        better = by[..., k] > best
        slot = jnp.where(better, k, slot)
        best, value = jnp.where(better, by[..., k], best), jnp.where(better, values[..., k], value)
    return slot, value


def make(config: Config, env: Any, tasks: Tasks, graph: TaskGraph | None = None) -> Algorithm:
    """MAXQ on an environment with Discrete observations and actions; parameters: `Values`.

    Args:
        graph: the task graph; None: that of Taxi or of four rooms.

    Raises:
        UsageError: a setting that cannot work, an environment without such spaces or without a graph, or a graph that
            does not fit it.
    """
    require_choice(config, "variant", ("maxq-q", "maxq-0"))
    require_fraction(config, "step_size", "discount")
    require_positive(
        config, "temperature", "rollout_length", "environments", "history_length", "chunk", "polling_interval"
    )
    require_positive(config, "eval_episodes", "eval_horizon")
    require_positive(config, "polling_interval_decrease", or_zero=True)
    if isinstance(config.polling_interval, (int, float)) and config.polling_interval < 1:
        raise UsageError(f"polling_interval must be at least 1, got {config.polling_interval}")
    with jax.ensure_compile_time_eval():  # also under a trace, as in a sweep over traced settings
        graph = graph_of(config, env, tasks, graph)
    rows, num_actions, root, height = graph.rows, graph.num_actions, len(graph.slots) - 1, graph.height
    terminal, goal, child = jnp.asarray(graph.terminal), jnp.asarray(graph.goal), jnp.asarray(graph.child)
    entry, reward_entry = jnp.asarray(graph.entry), jnp.asarray(graph.reward_entry)
    pseudo_reward = jnp.asarray(graph.pseudo_reward) * (config.variant == "maxq-q")
    row_task, row_below, own = jnp.asarray(rows.task), jnp.asarray(rows.below), jnp.asarray(rows.own)
    family, cooling = jnp.asarray(graph.family), jnp.asarray(graph.cooling)
    zeros, zero = jnp.zeros(height, jnp.int32), jnp.zeros((), jnp.int32)
    nothing = Stack(task=zeros, slot=zeros, child=zeros, start=zeros, depth=zero, since=zero, time=zero - 1)

    def init_values(key: jax.Array) -> Values:
        return Values(
            completion=jnp.full((graph.completions, 2), config.initial_value, jnp.float32),
            reward=jnp.full(graph.rewards, config.initial_value, jnp.float32),
            temperature=jnp.full(int(graph.family.max()) + 1, config.temperature, jnp.float32),
            interval=jnp.full((), config.polling_interval, jnp.float32),
        )

    def act(values: Values, before: Stack, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        over, depth = terminal[inp.obs][before.task], before.depth
        for place in reversed(range(height)):  # leave what is over
            depth = jnp.where((depth == place + 1) & over[place], place, depth)
        depth = jnp.where(before.since >= values.interval, 0, depth)
        top, time = jnp.maximum(depth - 1, 0), before.time + 1
        since = jnp.where(depth == 0, 1, before.since + 1)

        # a subtask on top of the stack chooses, and each that it calls
        chooser = jnp.where(depth == 0, root, before.task[top])
        now = evaluate_subtask(graph, values, inp.obs, chooser)
        tasks_of_rows, slots = row_task[inp.obs, chooser], now.best  # of all rows, whichever will have to choose
        if not greedy:
            temperature = jnp.maximum(values.temperature[family[tasks_of_rows]], COLD)
            slots = jax.vmap(boltzmann)(uniforms(key, root + 1)[tasks_of_rows], now.inside, temperature)
        called = row_below[inp.obs, chooser, jnp.arange(len(slots)), slots]
        next_rows = jnp.maximum(called - num_actions - 1, 0)
        nodes = jnp.where(called < num_actions, called, num_actions + tasks_of_rows[next_rows])
        choices = jnp.stack([slots, nodes, next_rows], axis=1)
        frames, task, action, acting = [], jnp.int32(root), jnp.int32(0), jnp.array(False)
        row = own[chooser]
        for place in range(height):  # from the top on call children until one of them is an action
            task = jnp.where(place <= top, before.task[place], task) if place else task
            calls = (place >= top) & ~acting
            slot, node, next_row = choices[row]
            new = (task, slot, node, time)
            old = (task, before.slot[place], before.child[place], before.start[place])
            frames.append([jnp.where(calls, x, y) for x, y in zip(new, old)])
            node = frames[-1][2]
            depth = jnp.where(calls, place + 1, depth)
            action = jnp.where(calls, node, action)
            acting |= calls & (node < num_actions)
            task = jnp.maximum(node - num_actions, 0)
            row = jnp.where(calls, next_row, row)
        running, chosen, children, starts = map(jnp.stack, zip(*frames))
        stack = Stack(running, chosen, children, starts, depth, since, time)
        return action, stack, stack

    agent = Agent(init=init_values, start=lambda values, key: nothing, act=act)

    def learn(
        settings: Settings, values: Values, memory: Memory, t: Transition, acted: jax.Array
    ) -> tuple[Values, Lesson]:
        """One environment: the lesson of a new step, where it `acted`, or what remains of the one before."""
        alpha, (lesson, history) = settings.step_size, memory
        at = jnp.where(acted, reward_entry[t.obs, t.action], graph.rewards)  # out of bounds: dropped
        error = t.reward - values.reward.at[at].get(mode="fill", fill_value=0.0)
        values = values._replace(reward=values.reward.at[at].add(alpha * error, mode="drop"))
        stack: Stack = jax.tree.map(lambda new, old: jnp.where(acted, new, old), t.extras, lesson.stack)
        place = jnp.where(acted, stack.depth - 1, lesson.place)
        done = jnp.where(acted, 0, lesson.done)
        arrived = jnp.where(acted, t.next_obs, lesson.arrived)
        terminated = jnp.where(acted, t.terminated, lesson.terminated)

        task, slot, node, start = (x[place] for x in stack[:4])
        over = terminated | terminal[arrived, task]
        now, row = evaluate_subtask(graph, values, arrived, task), own[task]
        best = now.best[row]
        worth = jnp.stack([now.inside[row, best], now.q[row, best]])
        ending = jnp.stack([pseudo_reward[arrived, task], jnp.zeros(())])
        worth = jnp.where(over, ending, worth)
        if not config.all_states:  # the state of the call alone, N steps ago
            worth *= settings.discount ** (stack.time - start)
        target = jnp.where(done == 0, worth, lesson.target)

        # the child's last states first
        back = done + jnp.arange(config.chunk)
        length = jnp.minimum(stack.time - start + 1, config.history_length) if config.all_states else 1
        last = stack.time if config.all_states else start
        states = history[(last - back) % config.history_length]
        used = (place >= 0) & (back < length) & (child[states, task, slot] == node)
        entries = jnp.where(used, entry[states, task, slot], graph.completions)
        completion = values.completion
        for k in range(config.chunk):  # in turn: a value may belong to several of the states
            target = settings.discount * target
            old = completion.at[entries[k]].get(mode="fill", fill_value=0.0)
            completion = completion.at[entries[k]].add(alpha * (target - old), mode="drop")

        finished = (place >= 0) & (done + config.chunk >= length)
        reached = finished & over & goal[arrived, task]
        cooled = jnp.where(reached, values.temperature[family[task]] * cooling[task], values.temperature[family[task]])
        fall = jnp.where(reached & (place == 0), settings.polling_interval_decrease, 0.0)
        values = values._replace(
            completion=completion,
            temperature=values.temperature.at[family[task]].set(cooled),
            interval=jnp.maximum(values.interval - fall, 1.0),
        )
        done = jnp.where(finished, 0, done + config.chunk)
        place = jnp.where(finished, jnp.where(over, place - 1, -1), place)
        return values, Lesson(stack, place, done, target, arrived, terminated)

    def unfinished(carry: Any) -> jax.Array:
        _, _, _, memory, taken, _ = carry
        return jnp.any((taken < config.rollout_length) | (memory.lesson.place >= 0))

    def tick(carry: Any) -> Any:
        settings, values, world, memory, taken, metrics = carry
        acts = (memory.lesson.place < 0) & (taken < config.rollout_length)  # [B]
        after, t = rollout(env, agent, tasks, values, world, 1)
        t = jax.tree.map(lambda x: x[0], t)
        written = jnp.where(
            acts, t.extras.time % config.history_length, config.history_length
        )  # out of bounds: dropped
        history = jax.vmap(lambda h, at, state: h.at[at].set(state, mode="drop"))(memory.history, written, t.obs)

        def one(values: Values, row: Any) -> tuple[Values, Lesson]:
            return learn(settings, values, *row)

        rows = (Memory(memory.lesson, history), t, acts)
        values, lesson = jax.lax.scan(one, values, rows, unroll=config.environments == 1)
        done = acts & ended(t)
        episode = {"return": world.ep_return + t.reward, "episode_length": world.ep_length + 1}
        metrics = {
            name: Average(m.total + jnp.sum(episode[name] * done), m.count + jnp.sum(done))
            for name, m in metrics.items()
        }
        world = jax.vmap(select)(acts, after, world)
        return settings, values, world, Memory(lesson, history), taken + acts, metrics

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        settings = Settings(*(jnp.float32(getattr(config, name)) for name in Settings._fields))
        none = Average(jnp.zeros(()), jnp.zeros((), jnp.int32))
        taken = jnp.zeros(config.environments, jnp.int32)
        metrics = {"return": none, "episode_length": none}
        carry = (settings, state.params, state.world, state.memory, taken, metrics)
        _, values, world, memory, _, metrics = _while(unfinished, tick)(carry)
        state = replace(state, params=values, world=world, memory=memory, iteration=state.iteration + 1)
        return state, metrics

    def init(key: jax.Array) -> TrainState:
        key, key_values, key_world = jax.random.split(key, 3)
        values = init_values(key_values)
        lesson = Lesson(nothing, zero - 1, zero, jnp.zeros(2), zero, jnp.array(False))
        memory = Memory(lesson, jnp.zeros(config.history_length, jnp.int32))
        return TrainState(
            params=values,
            learner=(),
            world=begin_worlds(env, agent, tasks, values, key_world, config.environments),
            memory=jax.tree.map(lambda x: jnp.broadcast_to(x, (config.environments, *x.shape)), memory),
            key=key,
            iteration=zero,
        )

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Greedy episodes without learning, from the start of each environment's task, with the current L.

        "return", "steps" [environment, episode], both up to `eval_horizon`; "ended", whether that was the end.
        """

        def play(world: World, key: jax.Array) -> dict[str, jax.Array]:
            count, horizon = config.eval_episodes, config.eval_horizon
            seen = play_episodes(
                env, agent, world.task, state.params, key, episodes=count, horizon=horizon, greedy=True
            )
            mask = first_episode(seen)
            return {
                "return": jnp.sum(seen.reward * mask, axis=0),
                "steps": jnp.sum(mask, axis=0),
                "ended": jnp.any(seen.terminated & (mask > 0), axis=0),
            }

        measured = jax.vmap(play)(state.world, jax.random.split(key, config.environments))
        return {name: NamedArray(values, ("environment", "episode")) for name, values in measured.items()}

    return Algorithm(
        init=init, step=step, evaluate=evaluate, agent=agent, env_steps=config.environments * config.rollout_length
    )


def graph_of(config: Config, env: Any, tasks: Tasks, graph: TaskGraph | None = None) -> TaskGraph:
    """The graph that is given, or the environment's own; UsageError where there is none or it does not fit."""
    sizes = table_sizes(env)
    if graph is None:
        from jaxrl_envs.four_rooms import FourRooms
        from jaxrl_envs.taxi import Taxi

        if isinstance(env, Taxi):
            graph = taxi_graph(env, config.state_abstraction)
        elif isinstance(env, FourRooms):
            if tasks.resample != "never":
                raise UsageError("the graph of four rooms is made for one goal: use tasks that are never resampled")
            graph = rooms_graph(env, int(tasks.sample(jax.random.key(0)).goal), config.state_abstraction)
        else:
            raise UsageError(
                f"MAXQ needs a task graph, and {env.name} has none of its own: make one by `task_graph` and give it as "
                "the last argument of `make`"
            )
    if (found := graph.reward_entry.shape) != sizes:
        raise UsageError(f"the graph is about (states, actions) = {found}, {env.name} has {sizes}")
    return graph


def _while(unfinished: Callable[[Any], jax.Array], step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`jax.lax.while_loop`, for a `step` that leaves alone what is finished.

    A vmap of the common one waits for the last run as well, but selects in every step, for every run, between its old
    and its new state, tables and all. Here that is left to `step`.
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
