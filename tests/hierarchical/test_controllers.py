"""Controllers as options: values against a shortest path search, steps against plain loops, and the theorem."""

import heapq
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.controller_tasks import Landmarks, MovingMass, random_landmarks
from jaxrl_hier.hierarchical.controllers import (
    execute,
    landmark_controllers,
    landmark_step,
    mass_controllers,
    mass_step,
    option_values,
    state_value,
    target_values,
)


def fewest_steps(landmarks, radius):
    """Steps from each landmark to the last, by Dijkstra's algorithm."""
    distance = np.linalg.norm(landmarks[:, None] - landmarks, axis=2)
    found = np.full(len(landmarks), np.inf)
    queue: list[tuple[int, int]] = [(0, len(landmarks) - 1)]
    while queue:
        steps, here = heapq.heappop(queue)
        if steps < found[here]:
            found[here] = steps
            for other in np.flatnonzero((distance[here] <= radius) & (distance[here] > 0)):
                heapq.heappush(queue, (steps + int(np.ceil(distance[here, other] * 100)), int(other)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_values_of_landmarks_are_shortest_paths(seed):
    with jax.enable_x64(True):
        params = random_landmarks(jax.random.key(seed))
        controllers = landmark_controllers(params)
        values = target_values(controllers)
        landmarks = np.asarray(params.landmarks)
        expected = fewest_steps(landmarks, float(params.radius))
        np.testing.assert_array_equal(values, -expected)
        way = np.linalg.norm(landmarks, axis=1)
        q = -np.ceil(100 * way) - expected
        np.testing.assert_array_equal(option_values(controllers, values, jnp.zeros(2)), q)
        best = np.max(np.where(way <= params.radius, q, -np.inf))
        assert state_value(controllers, values, jnp.zeros(2)) == best


def test_execution_takes_the_planned_steps_and_interruption_no_more():
    """From 200 points of 5 random layouts; the theorem says no more, and in these somewhere fewer."""
    with jax.enable_x64(True):

        def runs(key):
            params = random_landmarks(key)
            controllers = landmark_controllers(params)
            values, step = target_values(controllers), landmark_step(Landmarks(), params)
            points = jax.random.uniform(jax.random.fold_in(key, 1), (40, 2), maxval=3.0)

            def at(point):
                run = lambda interrupt: execute(step, controllers, values, point, 1200, interrupt).steps
                return state_value(controllers, values, point), run(False), run(True)

            return jax.vmap(at)(points)

        value, whole, cut = map(np.asarray, jax.jit(jax.vmap(runs))(jax.random.split(jax.random.key(3), 5)))
        solved = np.isfinite(value)
        assert solved.sum() > 50
        np.testing.assert_array_equal(whole[solved], -value[solved])
        assert (cut <= whole)[solved].all()
        assert (cut < whole)[solved].any()


def test_an_option_is_left_only_for_one_that_may_start_and_is_better():
    with jax.enable_x64(True):
        env = MovingMass()
        controllers = mass_controllers()
        values = target_values(controllers)
        run = jax.jit(lambda state: execute(mass_step(env), controllers, values, state, 250, True))(jnp.zeros(2))
        options = np.asarray(run.option)[: int(run.steps)]
        (switch,) = [t for t, (a, b) in enumerate(pairwise(options), 1) if a != b]
        positions = np.asarray(run.states)[:, 0]
        assert positions[switch - 1] <= 0.5 < positions[switch]
        assert options[0] == 0
        assert options[-1] == 1


def slow_mass(switch):
    """Steps until the mass rests at 2, where the controller to 2 may take over from `switch`; None: at rest at 1."""
    x = v = 0.0
    target, steps = 1.0, 0
    while target == 1.0 or max(abs(x - 2), abs(v)) >= 1e-4:
        if (x > switch) if switch is not None else max(abs(x - 1), abs(v)) < 1e-4:
            target = 2.0
        v = v + 0.01 * (target - x) - 0.175 * v
        x, steps = x + v, steps + 1
    return steps


@pytest.mark.parametrize("interrupt", [False, True])
def test_steps_of_the_mass(interrupt):
    """210 steps without interruption, as published; with it 122, where the paper has 121."""
    with jax.enable_x64(True):
        controllers = mass_controllers()
        values = target_values(controllers)
        np.testing.assert_array_equal(values, [-105, 0])
        step = mass_step(MovingMass())
        run = jax.jit(lambda state: execute(step, controllers, values, state, 250, interrupt))(jnp.zeros(2))
        assert run.steps == slow_mass(0.5 if interrupt else None) == (122 if interrupt else 210)
