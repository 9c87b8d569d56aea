"""Episodes of a Gymnasium environment that compiled programs step, from a callback of JAX for all of them at once.

An environment of Gymnasium keeps its own state and cannot go back, where JAX's programs are functions of a state. So
here a state is a ticket: the number of an episode and the steps that it has taken. A rollout uses each ticket once. The
last step may be requested again, as loops that have finished do while others go on under `vmap`; its stored result is
returned. Any other use of an old ticket is refused.

Episodes that are over give their environment to those that begin. The host is not told when a program abandons an
episode: `keep` ends all but those whose tickets are still held, and where there are too many, `begin` ends the one that
has waited longest for a step. Those are left from earlier rollouts, since a rollout begins its worlds at once.
"""

import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from gymnax.environments import spaces

from jaxrl_hier.checks import UsageError

KEPT, ROLLOUTS = 4096, 4  # episodes beside those held: so many, or as many as so many rollouts have


class Seen(NamedTuple):
    """The result of a step; leading axes are those of the tickets."""

    obs: Any
    reward: Any  # [] float32
    terminated: Any  # [] bool
    truncated: Any  # [] bool: by the environment itself
    success: Any  # [] bool; False where the environment does not say


class Episode:
    """An episode, and its last step."""

    def __init__(self, env: Any):
        self.env, self.time = env, 0  # None once it is over
        self.action: Any = None
        self.seen: Any = None


class Episodes:
    """Episodes of one environment, by the number of their tickets.

    Args:
        build: () -> `gymnasium_boundary.Converted`.
        limit: steps of an episode.
        observations, actions: spaces in gymnax's form.
        set_task: (env, task) -> None, before an episode begins; None: there are no tasks.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        limit: int,
        observations: Any,
        actions: Any,
        set_task: Callable[[Any, np.ndarray], None] | None,
    ):
        self.build, self.limit, self.set_task = build, limit, set_task
        self.actions, self.nothing = actions, _zeros(observations)
        self.under: dict[int, Episode] = {}  # under way, by number: first the one that waits longest for a step
        self.over: dict[int, Episode] = {}  # whose last step may be told again: first the one that ended first
        self.held: set[int] = set()  # those that `keep` has kept
        self.idle: list[Any] = []
        self.count = self.widest = 0  # episodes begun, and the most worlds of a call
        self.failure: str | None = None  # why a call failed, in one line
        self.interrupted = False  # whether a call was, as by Ctrl-C
        self.lock = threading.Lock()  # JAX may make two calls at a time

    def begin(self, words: Any, task: Any, wanted: Any) -> tuple[np.ndarray, Any]:
        """Numbers and first observations, where they are wanted.

        Args:
            words: [..., 2] uint32, a key. task: [..., *task]. wanted: [...] bool.
        """
        words, task, wanted = np.asarray(words), np.asarray(task), np.asarray(wanted)
        axes, count = wanted.shape, wanted.size
        self.widest = max(self.widest, count)
        seeds, task = words.reshape(count, 2)[:, 1] >> 1, task.reshape(count, *task.shape[len(axes) :])
        numbers, seen = np.zeros(count, np.uint32), [self.nothing] * count
        with self.lock, self._noting_failures("reset"):
            for i in np.flatnonzero(wanted):
                env = self._environment()
                if self.set_task is not None:
                    self.set_task(env.env, task[i])
                seen[i], _ = env.reset(seed=int(seeds[i]))
                self.count += 1
                numbers[i] = self.count
                self.under[self.count] = Episode(env)
        return numbers.reshape(axes), _stacked(seen, axes)

    def step(self, ticket: Any, action: Any) -> Seen:
        """A step of each episode.

        Args:
            ticket: number and time, [...] each. action: [..., *action].
        """
        numbers, times, actions = (np.asarray(x) for x in (*ticket, action))
        axes = numbers.shape
        actions = actions.reshape(numbers.size, *self.actions.shape)
        with self.lock, self._noting_failures("step"):
            rows = [self._step(*row) for row in zip(numbers.flat, times.flat, actions)]
        obs, *numbers_seen = zip(*rows)
        reward, *flags = (np.asarray(x).reshape(axes) for x in numbers_seen)
        return Seen(_stacked(obs, axes), reward.astype(np.float32), *flags)

    def _step(self, number: Any, time: Any, action: np.ndarray) -> tuple[Any, float, bool, bool, bool]:
        number = int(number)
        episode = self.under.pop(number, None)
        if episode is not None:
            self.under[number] = episode  # now the last
        else:
            episode = self.over.get(number)
        if episode is not None and episode.time == time + 1 and np.array_equal(episode.action, action):
            return episode.seen
        if episode is None and 0 < number <= self.count:
            raise UsageError(
                f"the host has given up an episode that is still needed, since more than {self.most} were under way; "
                "use fewer environments, or log rows more often"
            )
        if episode is None or episode.time != time or episode.env is None:
            raise UsageError(
                "a program steps an episode from an old state, and an environment of Gymnasium cannot go back: this "
                "needs an environment in JAX"
            )
        obs, reward, terminated, truncated, info = episode.env.step(action)
        episode.time, episode.action = episode.time + 1, action.copy()
        episode.seen = obs, reward, terminated, truncated, info.get("success", False)
        if terminated or truncated or episode.time >= self.limit:
            self.idle.append(episode.env)
            episode.env = None
            self.over[number] = self.under.pop(number)
            if len(self.over) > self.most:
                del self.over[next(iter(self.over))]
        return episode.seen

    @property
    def most(self) -> int:
        """Episodes beside those held."""
        return max(KEPT, ROLLOUTS * self.widest)

    def _environment(self) -> Any:
        """One that no episode uses."""
        if len(self.under) - len(self.held) >= self.most:
            self._end([next(number for number in self.under if number not in self.held)])
        return self.idle.pop() if self.idle else self.build()

    def keep(self, held: Iterable[Any]) -> None:
        """End the episodes whose numbers are not in any of these arrays."""
        with self.lock:
            self.held = {int(number) for numbers in held for number in np.asarray(numbers).flat}
            self._end([number for number in self.under if number not in self.held])
            self.over.clear()

    def _end(self, numbers: list[int]) -> None:
        self.idle += [self.under.pop(number).env for number in numbers]

    def close(self) -> None:
        """End all episodes and close their environments."""
        self.keep([])
        while self.idle:
            self.idle.pop().close()

    @contextmanager
    def passing_interrupts(self) -> Iterator[None]:
        """Raise a KeyboardInterrupt that came in a call again, of which JAX makes an error of its own."""
        try:
            yield
        except jax.errors.JaxRuntimeError:
            if self.interrupted:
                raise KeyboardInterrupt from None
            raise

    @contextmanager
    def _noting_failures(self, method: str) -> Iterator[None]:
        """Keep an error in one line, since JAX passes it on as a string with its own traceback."""
        self.failure, self.interrupted = None, False
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted = True
            raise
        except UsageError as error:
            self.failure = str(error)
            raise
        except Exception as error:
            text = (str(error).strip() or "no message").splitlines()[0]
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{last.filename.rsplit('/', 1)[-1]}, line {last.lineno}"
            self.failure = f"{method} raises {type(error).__name__} ({place}): {text}"
            raise


def _zeros(space: Any) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _zeros(part) for name, part in space.spaces.items()}
    return np.zeros(space.shape, jax.dtypes.canonicalize_dtype(space.dtype))


def _stacked(rows: Any, axes: tuple[int, ...]) -> Any:
    """Observations as one, with these leading axes, in JAX's dtypes."""

    def of(*leaves: Any) -> np.ndarray:
        array = np.stack([np.asarray(x) for x in leaves])
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype)).reshape((*axes, *array.shape[1:]))

    return jax.tree.map(of, *rows)
