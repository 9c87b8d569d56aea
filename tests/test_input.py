"""What is given for an environment, its tasks or a setting, and is none."""

from functools import partial
from pathlib import Path

import gymnasium
import pytest

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.four_rooms import NONE, FourRooms
from jaxrl_envs.tasks import Tasks, single
from jaxrl_hier.abstractions.options import primitive_options
from jaxrl_hier.checks import WriteError, writing_to
from jaxrl_hier.engine.processes import connect
from jaxrl_hier.hierarchical.options import hallway_options


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": FourRooms}, r"env is the class FourRooms: give an object of it, such as FourRooms\(\)"),
        ({"env": object()}, "env must be a name or an environment .* has no default_params"),
        ({"env": 5}, "env must be a name or an environment of gymnax's contract; 5 has no default_params"),
        ({"env": (FourRooms(), 5)}, "has no default_params.*; give its tasks as `tasks`"),
        ({"env": gymnasium.make("CartPole-v1")}, "is an environment of Gymnasium: give jaxrl_hier.host.HostEnv"),
        ({"tasks": FourRooms().default_params}, "tasks must be jaxrl_envs.Tasks, got .*; jaxrl_envs.tasks.single"),
        ({"tasks": single}, "tasks must be jaxrl_envs.Tasks, got"),
        ({"tasks": Tasks(sample=3)}, "tasks.sample must be a function"),
        ({"tasks": Tasks(sample=lambda key: None, resample="epsiode")}, "tasks.resample must be never, episode or"),
        ({"setp_size": 0.1}, "unknown setting of smdp-q 'setp_size'; nearest: step_size"),
        ({"zzzzzz": 0.1}, "unknown setting of smdp-q 'zzzzzz'"),
        (
            {"options": primitive_options(3, 2)},
            "the last argument of jaxrl_hier.hierarchical.smdp_q.make",
        ),
        ({"options": 3}, "options of your own are the last argument"),
        ({"env": "four-room"}, "unknown environment 'four-room'; nearest: four-rooms"),
        ({"env": "kinetix:small"}, "unknown environment 'kinetix:small': kinetix is not supported. Environments are"),
        ({"env": "Navix-Empty-5x5-v0"}, "ids of navix are navix:…, such as navix:Navix-Empty-5x5-v0"),
        ({"env": "craftax"}, "ids of craftax are craftax:…"),
        ({"env": "qwertzuiop123"}, "no name is close to it. Environments are those of"),
        ({"env": "somewhere:ant"}, "there is no module somewhere"),
    ],
)
@pytest.mark.parametrize("call", [jaxrl_hier.make, jaxrl_hier.train])
def test_what_is_none_is_named(call, settings, message):
    with pytest.raises(jaxrl_hier.UsageError, match=message) as error:
        call("smdp-q", **settings)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 420


class Numbered(FourRooms):
    """Cells that are counted from `first`."""

    def __init__(self, first):
        super().__init__()
        self.first = first

    def get_obs(self, state, params=None, key=None):
        return state.cell + self.first


@pytest.mark.parametrize(("first", "shown"), [(1, "104"), (-50, r"-\d+")])
def test_observations_outside_of_their_discrete_space_are_refused(first, shown):
    """A table would drop what is learned there, or learn it for another state. Random play sees the last cell only
    where episodes begin anywhere."""
    env = Numbered(first)
    tasks = single(env.default_params.replace(start=NONE))
    message = rf"Numbered shows {shown}, which its observation space, Discrete\(104\), does not hold: number the"
    for train in (jaxrl_hier.train, partial(jaxrl_hier.sweep, over={"step_size": [0.1, 0.2]})):
        with pytest.raises(jaxrl_hier.UsageError, match=message):
            train("q-learning", env, tasks)
    jaxrl_hier.train("q-learning", Numbered(0), tasks, iterations=1, log_every=1, checkpoint_every=1, quiet=True)


def test_devices_change_no_setting():
    """What a run learns does not depend on how many share the work."""
    with pytest.raises(jaxrl_hier.UsageError, match=r"environments must be a multiple of devices \(2\), got 1"):
        jaxrl_hier.train("q-learning", devices=2)


def test_what_stops_a_run_is_a_function():
    for stop in (3, "now"):
        with pytest.raises(jaxrl_hier.UsageError, match="stop must be a function without arguments, got"):
            jaxrl_hier.train("q-learning", stop=stop)


def test_runs_to_compare_are_a_list():
    for one in ("runs/a", Path("runs/a")):
        with pytest.raises(jaxrl_hier.UsageError, match="folders must be a list of run folders or runs, got"):
            jaxrl_hier.compare(one)


@pytest.mark.parametrize("coordinator", ["nonsense", "host:", ":1"])
def test_a_coordinator_is_host_and_port(coordinator):
    with pytest.raises(jaxrl_hier.UsageError, match=r"coordinator must be host:port, such as .*, got"):
        connect(coordinator, 1, 0)


def test_an_environment_may_come_with_its_tasks():
    env, tasks = jaxrl_envs.make("four-rooms")
    assert jaxrl_hier.make("smdp-q", env=(env, tasks)).env_steps == 1
    assert hallway_options(env).policy.shape[0] == 8


def test_what_tensorstore_says_of_a_file_is_told_by_its_number():
    text = """Error writing "x" [spec='{"shape":[1,8]},"open":true}'] [os_error_code='24']"""
    with pytest.raises(WriteError, match=r"^cannot write run: Too many open files$"), writing_to(Path("run")):
        raise ValueError(text)
