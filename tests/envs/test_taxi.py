"""Taxi against its specification: both sets of rules, gymnasium's own environment, exact optima and pictures."""

from collections import Counter

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.taxi import IN_TAXI, SITES, WALLS, Taxi, TaxiState, decode, encode
from jaxrl_hier.exact import tabular
from tests.close import assert_close

SOUTH, NORTH, EAST, WEST, PICK_UP, PUT_DOWN = range(6)
R, G, Y, B = range(4)
REGISTERED = [name for name in ("Taxi-v4", "Taxi-v3") if name in gymnasium.registry]


def own(name, **options):
    """Gymnasium's own environment."""
    return gymnasium.make(name, **options).unwrapped


needs_v4 = pytest.mark.skipif("Taxi-v4" not in REGISTERED, reason="Taxi-v3 has other rules for rain and fickleness")

SWITCHES = [
    (rules, noise, fickle)
    for rules in ("dietterich", "gymnasium")
    for noise in (False, True)
    for fickle in (False, True)
]


class Solved:
    """An environment and, computed when first asked for, its exact model and optimal values."""

    def __init__(self, rules, noise, fickle):
        self.env = Taxi(rules, noise=noise, fickle=fickle)
        self.params = self.env.default_params
        self.step = jax.jit(jax.vmap(self.env.step_env, (0, 0, 0, None)))
        self.P, self.R = self.env.model(self.params)
        self.V = tabular.value_iteration(self.P, self.R, 1.0, max_sweeps=400)

    @property
    def mean(self):
        """The optimal value, averaged over the start states."""
        return float(self.env.start_distribution(self.params) @ self.V)

    def number(self, row, col, passenger, destination, source=None):
        """The number of a state under Dietterich's rules; a passenger in a fickle taxi has a source."""
        if not self.env.fickle:
            return encode(row, col, passenger, destination)
        return ((row * 5 + col) * 8 + passenger + (source if passenger == IN_TAXI else 0)) * 4 + destination


@pytest.fixture(scope="module")
def solved():
    cache = {}

    def get(rules="dietterich", noise=False, fickle=False):
        key = rules, noise, fickle
        if key not in cache:
            cache[key] = Solved(*key)
        return cache[key]

    return get


# Numbers


def test_the_numbers_are_gymnasiums():
    theirs = own(REGISTERED[0])
    for number in range(500):
        assert tuple(int(x) for x in decode(number)) == tuple(theirs.decode(number))
    numbers = np.arange(500)
    np.testing.assert_array_equal(encode(*decode(numbers)), numbers)
    np.testing.assert_array_equal(decode(jnp.arange(504)), decode(np.arange(504)))
    assert [tuple(map(int, decode(500 + site))) for site in range(4)] == [
        (*at, site, site) for site, at in enumerate(SITES.values())
    ]


def test_sites_and_walls_as_in_the_paper():
    xy = {name: (col, 4 - row) for name, (row, col) in SITES.items()}
    assert xy == {"R": (0, 4), "G": (4, 4), "B": (3, 0), "Y": (0, 0)}
    assert {(col, 4 - row) for row, col in WALLS} == {(1, 3), (1, 4), (0, 0), (0, 1), (2, 0), (2, 1)}


@pytest.mark.parametrize(
    ("rules", "fickle", "states"),
    [("dietterich", False, 504), ("dietterich", True, 804), ("gymnasium", False, 500), ("gymnasium", True, 1000)],
)
def test_states_and_observations(solved, rules, fickle, states):
    env = solved(rules, True, fickle).env
    assert env.num_states == states
    assert env.num_observations == (504 if rules == "dietterich" else 500)
    assert env.partially_observed == fickle
    assert set(env.observation_of_state) == set(range(env.num_observations))
    if not fickle:
        np.testing.assert_array_equal(env.observation_of_state, np.arange(states))
    _, _, passenger, destination = decode(env.observation_of_state[env.starts])
    assert (passenger < IN_TAXI).all()
    pairs = Counter(zip(passenger.tolist(), destination.tolist()))
    assert len(pairs) == (16 if rules == "dietterich" else 12)
    assert set(pairs.values()) == {25}
    start = np.asarray(env.start_distribution(env.default_params))
    assert start.sum() == pytest.approx(1, abs=1e-5)
    assert (start[env.starts] > 0).all()
    assert (start > 0).sum() == len(env.starts)


# Dietterich's rules


def by_the_book(env, x, y, passenger, destination, source, action):
    """{state: probability} and reward of one action, in the paper's coordinates and one rule after the other.

    A state is (x, y, passenger, destination, source), or ("delivered", site).
    """
    sites = [(0, 4), (4, 4), (0, 0), (3, 0)]  # R, G, Y, B
    walls = [(1, 3), (1, 4), (0, 0), (0, 1), (2, 0), (2, 1)]  # between x and x + 1 at y

    def move(direction):
        if direction == "N":
            return x, min(y + 1, 4)
        if direction == "S":
            return x, max(y - 1, 0)
        if direction == "E":
            return (x, y) if x == 4 or (x, y) in walls else (x + 1, y)
        return (x, y) if x == 0 or (x - 1, y) in walls else (x - 1, y)

    if action == PICK_UP:
        if passenger != IN_TAXI and (x, y) == sites[passenger]:
            return {(x, y, IN_TAXI, destination, passenger): 1.0}, -1
        return {(x, y, passenger, destination, source): 1.0}, -11
    if action == PUT_DOWN:
        if passenger == IN_TAXI and (x, y) == sites[destination]:
            return {("delivered", destination): 1.0}, 19
        return {(x, y, passenger, destination, source): 1.0}, -11
    intended = "SNEW"[action]
    right, left = {"N": ("E", "W"), "S": ("W", "E"), "E": ("S", "N"), "W": ("N", "S")}[intended]
    directions = {intended: 0.8, right: 0.1, left: 0.1} if env.noise else {intended: 1.0}
    destinations = {destination: 1.0}
    if env.fickle and passenger == IN_TAXI and (x, y) == sites[source]:
        destinations = {site: 0.3 / 4 + 0.7 * (site == destination) for site in range(4)}
    outcome = Counter()
    for direction, p in directions.items():
        for new, q in destinations.items():
            outcome[(*move(direction), passenger, new, source)] += p * q
    return outcome, -1


@pytest.mark.parametrize(("noise", "fickle"), [(False, False), (True, False), (False, True), (True, True)])
def test_dietterichs_rules_in_every_state(solved, noise, fickle):
    task = solved("dietterich", noise, fickle)
    env, P, R = task.env, np.asarray(task.P), np.asarray(task.R)

    def number(state):
        if state[0] == "delivered":
            return env.num_states - 4 + state[1]
        x, y, *rest = state
        return task.number(4 - y, x, *rest)

    expected, rewards = np.zeros_like(P), np.zeros_like(R)
    seen = set()
    for x, y, passenger, destination, source in np.ndindex(5, 5, 5, 4, 4):
        if passenger != source and (passenger < IN_TAXI or not fickle) and source > 0:
            continue  # the same state as with source 0
        s = number((x, y, passenger, destination, source))
        assert env.observation_of_state[s] == encode(4 - y, x, passenger, destination)
        seen.add(s)
        for action in range(6):
            outcome, rewards[s, action] = by_the_book(env, x, y, passenger, destination, source, action)
            expected[s, action] = 0
            for state, p in outcome.items():
                expected[s, action, number(state)] += p
    assert seen == set(range(env.num_states - 4))
    for site in range(4):
        s = number(("delivered", site))
        expected[s, :, s] = 1
        assert env.ended[s]
        assert env.observation_of_state[s] == 500 + site
    assert_close(P, expected)
    np.testing.assert_array_equal(R, rewards)


def test_the_fickle_passenger_by_hand(solved):
    """At his source, in the taxi: every attempt draws, even into a wall, and again on a revisit."""
    task = solved("dietterich", False, True)
    P = np.asarray(task.P)
    held = lambda row, col, destination, source: task.number(row, col, IN_TAXI, destination, source)
    changed = {held(0, 0, d, R): 0.775 if d == B else 0.075 for d in range(4)}
    bump = P[held(0, 0, B, R), NORTH]
    assert {s: pytest.approx(bump[s], abs=1e-6) for s in np.flatnonzero(bump)} == changed
    assert P[held(0, 0, B, G), SOUTH, held(1, 0, B, G)] == 1  # at another site
    assert P[held(1, 0, B, R), NORTH, held(0, 0, B, R)] == 1  # when he comes back, not before
    assert P[held(0, 0, R, R), PUT_DOWN, task.env.num_states - 4 + R] == 1  # not on other actions


def test_the_worked_example(solved):
    """One move to R, where the passenger is, seven to B: ten actions with the pick up and the put down."""
    V = solved().V
    assert V[encode(1, 0, R, B)] == pytest.approx(10, rel=1e-5)
    assert V[encode(0, 0, R, B)] == pytest.approx(11, rel=1e-5)


# Exact optima


def as_printed(value, digits):
    """Within half a unit of the last of `digits`, and the rounding of single precision."""
    half = 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return abs(float(value) - float(digits)) <= half + 1e-5 * float(digits)


@pytest.mark.parametrize(
    ("noise", "fickle", "every_pair", "source_is_not_destination"),
    [(False, False, "8.555", "6.93"), (True, False, "5.1485", "2.955"), (True, True, "5.603", "3.5605")],
)
def test_dietterichs_optima(solved, noise, fickle, every_pair, source_is_not_destination):
    task = solved("dietterich", noise, fickle)
    _, _, passenger, destination = decode(task.env.observation_of_state[task.env.starts])
    assert as_printed(task.mean, every_pair)
    assert as_printed(jnp.mean(task.V[task.env.starts[passenger != destination]]), source_is_not_destination)


def test_gymnasiums_optimum(solved):
    task = solved("gymnasium")
    assert as_printed(task.mean, "7.9300")
    policy = tabular.greedy_policy(tabular.action_values(task.P, task.R, task.V, 1.0))
    steps = tabular.expected_steps(task.P, policy)
    assert as_printed(task.env.start_distribution(task.params) @ steps, "13.0700")


@pytest.mark.parametrize(
    ("noise", "mean_steps"),
    [
        (False, {"R": "4.7200", "G": "4.4800", "B": "4.1200", "Y": "4.9600"}),
        (True, {"R": "6.322", "G": "5.968", "B": "5.828", "Y": "6.961"}),
    ],
)
def test_steps_to_a_site(solved, noise, mean_steps):
    """The fewest expected moves from the 25 cells to each site: what the subtask Navigate costs."""
    task = solved("dietterich", noise)
    held = encode(*np.divmod(np.arange(25), 5), IN_TAXI, R)  # a taxi with a passenger inside is where it is
    moves = task.P[np.ix_(held, np.arange(4), held)]
    for name, (row, col) in SITES.items():
        there = jnp.arange(25) == row * 5 + col
        steps = tabular.minimal_expected_steps(jnp.where(there[:, None, None], jnp.eye(25)[:, None], moves))
        assert as_printed(jnp.mean(steps), mean_steps[name])


# The step


@pytest.mark.parametrize(("rules", "noise", "fickle"), [("dietterich", True, True), ("gymnasium", True, True)])
def test_step_follows_the_model(solved, rules, noise, fickle):
    task, draws = solved(rules, noise, fickle), 2000
    env, states = task.env, task.env.num_states

    @jax.jit
    def counts(key):  # of successors [S * A, S'], and the mean rewards and terminations [S * A]
        def one(key, index, action):
            _, state, reward, terminated, _ = env.step_env(key, TaxiState(time=0, index=index), action, task.params)
            return state.index, reward, terminated

        def pair(index):
            keys = jax.random.split(jax.random.fold_in(key, index), draws)
            after, reward, terminated = jax.vmap(one, (0, None, None))(keys, index // 6, index % 6)
            return jnp.zeros(states, jnp.int32).at[after].add(1), reward.mean(), terminated.mean()

        return jax.lax.map(pair, jnp.arange(states * 6), batch_size=32)

    seen, reward, terminated = (np.asarray(x) for x in counts(jax.random.key(0)))
    P, R = np.asarray(task.P), np.asarray(task.R)
    seen = seen.reshape(P.shape) / draws
    going_on = ~env.ended
    _, _, passenger, destination = decode(env.observation_of_state)
    reachable = going_on & ((passenger != destination) | (rules == "dietterich"))
    assert (seen[going_on][P[going_on] == 0] == 0).all()
    open_ = going_on[:, None, None] & (P > 0) & (P < 1)
    z = (seen - P)[open_] / np.sqrt(P * (1 - P) / draws)[open_]
    assert np.abs(z).max() < 6  # the rarest outcome is expected 15 times in 2000, a skewed count
    assert abs(np.mean(z**2) - 1) < 0.05
    assert_close(reward.reshape(R.shape)[going_on], R[going_on])
    arrives = P[:, :, env.ended].sum(-1)
    assert_close(terminated.reshape(R.shape)[reachable], arrives[reachable])
    np.testing.assert_array_equal(arrives[reachable] > 1 - 1e-5, R[reachable] > 0)


def test_starts_are_uniform(solved):
    env, count = solved().env, 100_000
    keys = jax.random.split(jax.random.key(1), count)
    _, states = jax.jit(jax.vmap(env.reset_env, (0, None)))(keys, env.default_params)
    seen = np.bincount(states.index, minlength=504)
    assert set(np.flatnonzero(seen)) == set(env.starts)
    assert np.sum((seen[env.starts] - count / 400) ** 2) / (count / 400) < 399 + 5 * np.sqrt(2 * 399)


@pytest.mark.parametrize("name", ["taxi", "taxi-noisy", "taxi-fickle", "taxi-gymnasium"])
def test_registered_tasks_conform(name):
    env, tasks = jaxrl_envs.make(name)
    check_env(env, tasks._replace(sample=lambda key: tasks.sample(key).replace(max_steps_in_episode=30)), episodes=2)
    assert env.rules == ("gymnasium" if name == "taxi-gymnasium" else "dietterich")
    assert (env.noise, env.fickle) == (name in ("taxi-noisy", "taxi-fickle"), name == "taxi-fickle")
    assert env.default_params.max_steps_in_episode == (200 if name == "taxi-gymnasium" else 500)


@pytest.mark.parametrize("observation", ["one_hot", "factored"])
@pytest.mark.parametrize("rules", ["dietterich", "gymnasium"])
def test_other_observations(rules, observation):
    env = Taxi(rules, fickle=True, observation=observation)
    check_env(env, jaxrl_envs.tasks.single(env.default_params.replace(max_steps_in_episode=20)), episodes=1)
    for state in (0, 37, env.num_states - 1):
        seen = env.observation_of_state[state]
        expected = np.eye(env.num_observations)[seen] if observation == "one_hot" else decode(seen)
        np.testing.assert_array_equal(env.get_obs(TaxiState(index=state, time=0)), expected)


def test_unknown_switches():
    with pytest.raises(ValueError, match="rules is 'dietterich' or 'gymnasium', not 'gym'"):
        Taxi("gym")
    with pytest.raises(ValueError, match="observation is 'index', 'one_hot' or 'factored', not 'pixels'"):
        Taxi(observation="pixels")


def test_model_in_float64():
    env = Taxi(noise=True, fickle=True)
    with jax.enable_x64(True):
        P, R = env.model(env.default_params)
        assert P.dtype == R.dtype == jnp.float64
        np.testing.assert_allclose(P.sum(-1), 1, atol=1e-14)


# Gymnasium's own


def steps_from(task, states, actions, seed=0):
    """One step from each of `states` [N] by each of `actions` [N]."""
    keys = jax.random.split(jax.random.key(seed), len(states))
    before = TaxiState(index=jnp.asarray(states, jnp.int32), time=jnp.zeros(len(states), jnp.int32))
    obs, after, reward, terminated, _ = task.step(keys, before, jnp.asarray(actions), task.params)
    return np.asarray(obs), after, np.asarray(reward), np.asarray(terminated)


@pytest.mark.parametrize("name", REGISTERED)
def test_gymnasiums_table(solved, name):
    """Every action in each of the 500 states, also in those that no episode comes to."""
    theirs = own(name)
    states, actions = (index.ravel() for index in np.indices((500, 6)))
    table = [theirs.P[s][a] for s, a in zip(states.tolist(), actions.tolist())]
    assert all(len(outcomes) == 1 for outcomes in table)
    _, expected, rewards, ends = map(np.array, zip(*(outcomes[0] for outcomes in table)))
    obs, _, reward, terminated = steps_from(solved("gymnasium"), states, actions)
    np.testing.assert_array_equal(obs, expected)
    np.testing.assert_array_equal(reward, rewards)
    np.testing.assert_array_equal(terminated, ends)
    start = solved("gymnasium").env.start_distribution(None)
    assert_close(start, theirs.initial_state_distrib)


@needs_v4
def test_gymnasiums_table_in_the_rain(solved):
    theirs = own("Taxi-v4", is_rainy=True)
    task = solved("gymnasium", True)
    env = task.env
    expected, rewards = np.zeros((500, 6, 500)), np.zeros((500, 6))
    for s, a in np.ndindex(500, 6):
        for p, successor, reward, _ in theirs.P[s][a]:
            expected[s, a, successor] += p
            rewards[s, a] += p * reward
    P = np.zeros((500, 6, 500))
    np.add.at(
        P, (np.arange(500)[:, None, None], np.arange(6)[:, None], env.successors), env.weights / env.weights.sum()
    )
    assert_close(P, expected, 1e-12)
    assert_close(env.rewards, rewards, 1e-12)
    assert_close(np.asarray(task.P)[~env.ended], P[~env.ended])


def mostly_good_actions(task, length, rng):
    """Actions [length] to choose from in each state: at random, and with probability 0.6 an optimal one."""
    best = np.argmax(tabular.action_values(task.P, task.R, task.V, 1.0), axis=1)
    random, good = rng.integers(6, size=length), rng.random(length) < 0.6
    return lambda t, state: int(best[state]) if good[t] else int(random[t])


@pytest.mark.parametrize("good", [False, True])
def test_step_by_step_with_gymnasium(solved, good):
    """Observation, reward, termination and truncation of whole episodes; few random ones deliver, so both ways."""
    theirs = gymnasium.make(REGISTERED[0])
    task = solved("gymnasium")
    step, truncated_at = jax.jit(task.env.step_env), jax.jit(task.env.is_truncated)
    rng = np.random.default_rng(3)
    length = 2000
    choose = mostly_good_actions(task, length, rng) if good else lambda t, state: int(rng.integers(6))
    deliveries = truncations = 0
    obs, _ = theirs.reset(seed=5)
    state = TaxiState(index=jnp.int32(obs), time=jnp.int32(0))
    for t in range(length):
        action = choose(t, obs)
        obs, *outcome, _ = theirs.step(action)
        seen, state, reward, terminated, _ = step(jax.random.key(t), state, action, task.params)
        assert (int(seen), float(reward), bool(terminated), bool(truncated_at(state, task.params))) == (obs, *outcome)
        if outcome[1] or outcome[2]:
            deliveries, truncations = deliveries + outcome[1], truncations + outcome[2]
            obs, _ = theirs.reset()
            state = TaxiState(index=jnp.int32(obs), time=jnp.int32(0))
    assert deliveries > 20 if good else truncations > 5


@needs_v4
@pytest.mark.parametrize("rainy", [False, True])
def test_play_with_gymnasiums_fickle_passenger(solved, rainy):
    """Every transition of v4's play is possible in our model, and as frequent: astray, and to each destination."""
    theirs = gymnasium.make("Taxi-v4", is_rainy=rainy, fickle_passenger=True, max_episode_steps=10**6)
    task = solved("gymnasium", rainy, True)
    env, P = task.env, np.asarray(task.P)
    length = 20_000
    choose = mostly_good_actions(task, length, np.random.default_rng(4))
    seen_as = [np.flatnonzero(env.observation_of_state == obs) for obs in range(500)]
    transitions = np.empty((length, 3), int)
    obs, _ = theirs.reset(seed=6)
    state = seen_as[obs][0]  # the passenger waits, the first move with him is still to come
    for t in range(length):
        action = choose(t, state)
        obs, reward, terminated, _, _ = theirs.step(action)
        assert (reward, terminated) == (env.rewards[state, action], env.rewards[state, action] > 0)
        (after,) = (s for s in seen_as[obs] if P[state, action, s] > 0)
        transitions[t] = state, action, after
        state = after
        if terminated:
            obs, _ = theirs.reset()
            state = seen_as[obs][0]

    state, action, after = transitions.T
    destination = env.observation_of_state % 4
    intended = env.successors[state, action, 0] // 40  # the cell; 40 states in each
    changes = (destination[None] - destination[state][:, None]) % 4  # [T, S'] from the present destination
    events = {
        "astray": (np.arange(1000) // 40 != intended[:, None], rainy),
        **{f"destination + {k}": (changes == k, True) for k in (1, 2, 3)},
    }
    for name, (event, happens) in events.items():
        expected = np.sum(P[state, action] * event, axis=1)
        variance = np.sum(expected * (1 - expected))
        assert (variance > 10) == happens, name
        observed = np.sum(event[np.arange(length), after])
        assert abs(observed - expected.sum()) <= 4 * np.sqrt(variance), name


# Pictures


def cell_of(mask):
    """Row and column of the cell in which the middle of the marked pixels lies; the picture shows 5.1 by 5.1 cells."""
    row, col = (pixels.mean() for pixels in np.nonzero(mask))
    return int(row * 5.1 / mask.shape[0] - 0.05), int(col * 5.1 / mask.shape[1] - 0.05)


@pytest.mark.parametrize(
    ("state", "taxi", "passenger", "destination"),
    [
        (encode(2, 3, G, B), (2, 3), (0, 4), (4, 3)),
        (encode(1, 0, IN_TAXI, R), (1, 0), (1, 0), (0, 0)),
        (500 + Y, (4, 0), (4, 0), (4, 0)),
    ],
)
def test_render(solved, state, taxi, passenger, destination):
    env = solved().env
    picture = env.render(TaxiState(index=np.int32(state), time=np.int32(0)), env.default_params)
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    assert cell_of((red > 245) & (abs(green - 215) < 12) & (blue < 30)) == taxi  # gold
    assert cell_of((abs(red - 148) < 12) & (abs(green - 103) < 12) & (abs(blue - 189) < 12)) == passenger  # purple
    assert cell_of((red > 245) & (abs(green - 127) < 12) & (abs(blue - 14) < 12)) == destination  # orange
    wall = lambda row, col: (picture[int((row + 0.55) * 256 / 5.1), int((col + 1.05) * 256 / 5.1)] < 60).all()
    assert {(row, col) for row in range(5) for col in range(4) if wall(row, col)} == set(WALLS)


def test_a_map_without_a_state(solved):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    solved().env.draw(ax)
    assert not [patch for patch in ax.patches if type(patch).__name__ == "Circle"]
