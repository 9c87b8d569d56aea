"""Task graphs: their arrays, and the errors for those that cannot work."""

import numpy as np
import pytest

from jaxrl_envs.four_rooms import HALLWAYS, NUM_CELLS, FourRooms, cell_index, room_cells
from jaxrl_envs.taxi import SITE_CELLS, Taxi, encode
from jaxrl_hier.abstractions.task_graph import Child, Subtask, task_graph
from jaxrl_hier.checks import UsageError
from jaxrl_hier.hierarchical.graphs import rooms_graph, taxi_graph


@pytest.fixture(scope="module")
def taxi():
    return taxi_graph(Taxi(noise=True, fickle=True))


def test_taxi_has_the_published_numbers_of_values(taxi):
    assert taxi.num_values == 632
    assert taxi.rewards == 8
    full = taxi_graph(Taxi(), abstraction=False)
    assert (full.num_values, full.rewards) == (14_000, 3_000)
    # each value of C and V belongs to the states that it is used in and to no two functions
    for graph in (taxi, full):
        used = [set(graph.entry[..., i, k][graph.child[..., i, k] >= 0]) for i, k in np.ndindex(graph.child.shape[1:])]
        assert sum(map(len, used)) == len(set().union(*used))
        assert set().union(*used) - {graph.completions} <= set(range(graph.completions))
        assert len(np.unique(graph.reward_entry)) == graph.rewards


def test_taxi_binds_the_parameter_by_the_state(taxi):
    name = lambda node: taxi.nodes[node] if node >= 0 else None
    get, put, root = (taxi.subtask(task) for task in ("Get", "Put", "Root"))
    for site, target in enumerate("RGYB"):
        row, column = divmod(SITE_CELLS[site], 5)
        elsewhere, there = encode(2, 2, site, 3), encode(row, column, site, 3)
        assert name(taxi.child[elsewhere, get, 0]) == f"Navigate({target})"
        assert name(taxi.child[there, get, 0]) is None  # it is over there
        carried = encode(2, 2, 4, site)
        assert name(taxi.child[carried, put, 0]) == f"Navigate({target})"
        assert (taxi.child[carried, get] == -1).all()
        assert [name(n) for n in taxi.child[carried, root, :2]] == [None, "Put"]
    assert taxi.levels == (4, 2, 1)
    assert taxi.nodes[-1] == "Root"
    assert len({taxi.family[taxi.subtask(f"Navigate({site})")] for site in "RGYB"}) == 1


def test_gymnasium_allows_to_put_down_at_a_wrong_site():
    graph = taxi_graph(Taxi("gymnasium"))
    put, wrong = graph.subtask("Put"), encode(0, 0, 0, 1)  # at R, the destination is G
    assert graph.terminal[wrong, put]
    assert not graph.goal[wrong, put]
    assert graph.pseudo_reward[wrong, put] == -100
    assert not graph.terminal[wrong, graph.subtask("Root")]


@pytest.mark.parametrize("abstraction", [True, False])
def test_rooms_and_doors(abstraction):
    goal = cell_index(9, 9)  # in the lower right room
    graph = rooms_graph(FourRooms(), goal, abstraction)
    leave, root = graph.subtask("NW to N"), graph.subtask("Root")
    north, west = (cell_index(*HALLWAYS[door]) for door in "NW")
    assert graph.goal[north, leave]
    assert not graph.terminal[room_cells("NW"), leave].any()
    assert not graph.terminal[west, leave]  # the other door: it may start there
    assert graph.terminal[room_cells("SW"), leave].all()
    assert not graph.goal[room_cells("SW"), leave].any()
    called = {graph.nodes[n] for n in graph.child[cell_index(8, 8), root] if n >= 0}
    assert called == {"SE to E", "SE to S", "to the goal"}
    assert (graph.child[goal] == -1).all()
    if not abstraction:
        assert graph.completions == NUM_CELLS * (9 * 4 + 9)
    assert "to the goal" not in rooms_graph(FourRooms(), north).nodes


def test_a_pseudo_reward_is_due_where_a_subtask_ends_without_its_goal():
    states = np.arange(3)
    leave = Subtask({"go": Child("go")}, states > 0, states == 2, -7.0)
    root = Subtask({"Leave": Child("Leave")}, states > 0)
    graph = task_graph(3, ("go",), {"Leave": leave, "Root": root})
    np.testing.assert_array_equal(graph.pseudo_reward[:, 0], [0, -7, 0])


def test_functions_and_arrays_say_the_same():
    def line(over):
        return task_graph(
            4, ("left", "right"), {"Root": Subtask({"left": Child("left"), "right": Child("right")}, over)}
        )

    by_array, by_function = line(np.arange(4) == 3), line(lambda s: s == 3)
    assert all(np.array_equal(a, b) for a, b in zip(by_array[:8], by_function[:8]))


STATES = np.arange(8)  # x 0..3 and a light that is on or off
X, LIGHT = STATES % 4, STATES // 4
RIGHT = {"right": Child("right")}
DOOR = Subtask({"left": Child("left"), "right": Child("right")}, X == 3)


def build(subtasks, **options):
    return task_graph(8, ("left", "right"), subtasks, variables={"x": X, "light": LIGHT}, **options)


def moves():
    possible = np.zeros((8, 2, 8), bool)
    for a, step in enumerate((-1, 1)):
        possible[STATES, a, LIGHT * 4 + np.clip(X + step, 0, 3)] = True
    possible[3::4] = np.eye(8, dtype=bool)[3::4, None]
    return possible


CASES = {
    "a cycle": (
        {"Root": Subtask({"A": Child("A")}, X == 3), "A": Subtask({"B": Child("B")}, X == 3)}
        | {"B": Subtask({"A": Child("A")}, X == 3)},
        {},
        "subtasks must not call themselves, directly or through others: A -> B -> A",
    ),
    "an unknown child": (
        {"Root": Subtask({"Dor": Child("Dor")}, X == 3), "Door": DOOR},
        {},
        "unknown child of Root 'Dor'; nearest: Door",
    ),
    "no children": ({"Root": Subtask({}, X == 3)}, {}, "Root has no children"),
    "two roots": ({"A": DOOR, "B": DOOR}, {}, "one subtask must be the root, which no other calls; got A, B"),
    "one name for two": ({"left": DOOR}, {}, "left names an action and a subtask"),
    "a subtask that never ends": ({"Root": Subtask(RIGHT, X == 9)}, {}, "Root cannot end: it is terminal in no state"),
    "a subtask that cannot get there": (
        {"Root": Subtask({"left": Child("left")}, X == 3)},
        {"possible": moves()},
        "Root cannot end once it is in state 0: no action that it may come to leads to a terminal state",
    ),
    "an end before the episode's": (
        {"Root": Subtask(RIGHT, X >= 2)},
        {"possible": moves()},
        "Root is over in state 2, where the episode goes on",
    ),
    "an interruption of what goes on": (
        {"Root": Subtask(RIGHT, X == 3, interrupted=X == 2)},
        {},
        "Root is interrupted in state 2: that must be a terminal state and no goal of it",
    ),
    "a goal that is no end": (
        {"Root": Subtask(RIGHT, X == 3, goal=X == 2)},
        {},
        "Root has its goal in state 2 and does not end there",
    ),
    "nothing to call": (
        {"Root": Subtask({"right": Child("right", binding=np.where(X == 1, -1, 0))}, X == 3)},
        {},
        "Root has no child that it may call in state 1",
    ),
    "a binding out of range": (
        {"Root": Subtask({"right": Child("right", binding=X)}, X == 3)},
        {},
        "binding of right in Root must lie between -1 and 0",
    ),
    "a hidden variable": (
        {"Root": Subtask({"right": Child("right", ["light"])}, X == 3)},
        {},
        "abstraction of right in Root hides x, which the termination of Root needs: add 'x' to what it sees",
    ),
    "a hidden variable, by numbers": (
        {"Root": Subtask({"right": Child("right", LIGHT)}, X == 3)},
        {},
        "abstraction of right in Root hides x",
    ),
    "a hidden binding": (
        {
            "Root": Subtask({"Go": Child(["Go(0)", "Go(1)"], ["x"], binding=LIGHT)}, X == 3),
            "Go(0)": Subtask(RIGHT, X == 3),
            "Go(1)": Subtask(RIGHT, X == 3),
        },
        {},
        r"abstraction of Go in Root hides which of Go\(0\), Go\(1\) is called",
    ),
    "nothing left to complete, but there is": (
        {"Root": Subtask({"Go": Child("Go", ())}, X == 3), "Go": Subtask(RIGHT, (X == 2) | (X == 3), X == 2)},
        {},
        "abstraction of Go in Root hides everything, .* but Root goes on in state 2 after it",
    ),
    "an unknown variable": (
        {"Root": Subtask({"right": Child("right", ["y"])}, X == 3)},
        {},
        "unknown variable, seen by right in Root, 'y'; nearest: x, light",
    ),
    "an unknown action": ({"Root": Subtask(RIGHT, X == 3)}, {"rewards_see": {"up": ["x"]}}, "unknown action 'up'"),
    "an array of the wrong length": (
        {"Root": Subtask(RIGHT, X[:4] == 3)},
        {},
        r"terminal of Root must have one value for each of the 8 states, got shape \(4,\)",
    ),
    "a rate above one": ({"Root": Subtask(RIGHT, X == 3, cooling=1.5)}, {}, "cooling of Root must lie in"),
    "moves of another size": (
        {"Root": Subtask(RIGHT, X == 3)},
        {"possible": np.ones((4, 2, 4), bool)},
        r"possible must be \[8, 2, 8\], got \[4, 2, 4\]",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_can_not_work_is_refused(name):
    subtasks, options, message = CASES[name]
    with pytest.raises(UsageError, match=message):
        build(subtasks, **options)


def test_abstractions_that_hide_nothing_needed_are_fine():
    graph = build({"Root": Subtask({"right": Child("right", ["x"])}, X == 3)}, rewards_see={"right": (), "left": ["x"]})
    assert (graph.completions, graph.rewards) == (4, 5)


def test_rooms_need_a_goal():
    with pytest.raises(UsageError, match=r"goal must be a cell in 0\.\.103, got -1"):
        rooms_graph(FourRooms(), -1)


def test_names_are_looked_up(taxi):
    assert taxi.slot("Get", "pick up") == (taxi.subtask("Get"), 1)
    with pytest.raises(UsageError, match="unknown subtask 'get'; nearest: Get"):
        taxi.subtask("get")
    with pytest.raises(UsageError, match="unknown child of Get 'pickup'; nearest: pick up"):
        taxi.slot("Get", "pickup")
