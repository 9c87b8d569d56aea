"""A run as one object: trained, loaded, evaluated elsewhere, refused where it is another; environments and algorithms
that users bring, by registration, by import path and by entry points."""

import json
import sys
from dataclasses import dataclass
from importlib import metadata
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs import registry as env_registry
from jaxrl_envs.navigation2d import Navigation2D, NavigationParams
from jaxrl_envs.tasks import Tasks, single
from jaxrl_hier import building, registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.evaluation import play
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.types import Agent, Algorithm, TrainState
from jaxrl_hier.settings import BaseConfig
from tests.probes import Corridor, CorridorParams, Lottery, lotteries
from tests.sizes import SIZES

BEGUN = []  # a line for every state that was made, not only traced


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of the walker."""

    environments: int = 2
    """worlds"""
    size: int = 3
    """numbers in its weights"""
    eval_episodes: int = 3
    """episodes"""


def make(config, env, tasks):
    """It walks to the right, and adds one to its weights in every iteration."""

    def init_params(key):
        observed = env.observation_space(env.default_params).shape
        return {"weights": jax.random.normal(key, (config.size, *observed))}

    agent = Agent(init_params, lambda params, key: (), lambda params, carry, inp, key, greedy: (jnp.int32(1), (), ()))

    def init(key):
        jax.debug.callback(lambda: BEGUN.append("begun"))
        world = begin_worlds(env, agent, tasks, agent.init(key), key, config.environments)
        return TrainState(agent.init(key), (), world, (), key, jnp.zeros((), jnp.int32))

    def step(state):
        params = jax.tree.map(lambda x: x + 1, state.params)
        return state.replace(params=params, iteration=state.iteration + 1), {"total": jnp.sum(params["weights"])}

    evaluate = lambda state, key: play(env, agent, tasks, state.params, key, config.eval_episodes)
    return Algorithm(init, step, evaluate, agent, config.environments)


WALKER = registry.Entry(SimpleNamespace(Config=Config, make=make), env="test-corridor", summary="walks")


@pytest.fixture(scope="module", autouse=True)
def registered():
    jaxrl_envs.register("test-corridor", Corridor, "a corridor")
    jaxrl_hier.register("test-walker", WALKER.module, env=WALKER.env, summary=WALKER.summary)
    yield
    del env_registry.ENVIRONMENTS["test-corridor"], registry.ALGORITHMS["test-walker"]


QUIET = {"iterations": 4, "checkpoint_every": 2, "tensorboard": False, "quiet": True}


@pytest.fixture(scope="module")
def trained(registered, tmp_path_factory):
    return jaxrl_hier.train("test-walker", seeds=2, out=tmp_path_factory.mktemp("run") / "run", **QUIET)


def one_line(kind, call):
    """The message of an exception, which is one line."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def equal(a, b):
    is_key = lambda z: jax.dtypes.issubdtype(z.dtype, jax.dtypes.prng_key)
    same = lambda x, y: np.array_equal(*(jax.random.key_data(z) if is_key(z) else np.asarray(z) for z in (x, y)))
    return jax.tree.structure(a) == jax.tree.structure(b) and all(map(same, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_a_loaded_run_is_the_run_that_was_trained_and_nothing_is_run_for_it(trained):
    BEGUN.clear()
    run = jaxrl_hier.load(trained.directory)
    jax.effects_barrier()
    assert BEGUN == []
    assert equal(run.state, trained.state)
    assert equal(run.evaluation, trained.evaluation)
    assert run.rows == trained.rows
    assert (run.iteration, run.name, run.env_name, run.changed) == (4, "test-walker", "test-corridor", [])
    assert run.config == trained.config
    assert run.settings.seeds == 2
    assert equal(run.evaluate(), trained.evaluation)


def test_a_run_of_ones_own_environment_is_evaluated_there(tmp_path):
    """By the object that is given; without it nothing can build it."""
    folder, tasks = tmp_path / "run", single(CorridorParams(max_steps_in_episode=3))
    trained = jaxrl_hier.train("test-walker", Corridor(), tasks, out=folder, **QUIET)
    with pytest.raises(UsageError, match="which no name builds: give it as env"):
        jaxrl_hier.evaluate(folder)
    at, measured = jaxrl_hier.evaluate(folder, env=Corridor(), tasks=tasks)
    assert at == 4
    assert equal(measured, trained.evaluation)
    with pytest.warns(UserWarning, match="was trained on something else"):
        other = jaxrl_hier.evaluate(folder, env=Corridor())[1]
    assert not equal(other, measured)


def test_nothing_is_trained_inside_a_traced_function():
    train = lambda x: jaxrl_hier.train("test-walker", **QUIET) and x
    with pytest.raises(UsageError, match=r"^train compiles programs and runs them: call it outside of jax.jit"):
        jax.jit(train)(1.0)


def test_runs_are_compared_as_objects(trained, tmp_path):
    other = jaxrl_hier.train("test-walker", size=4, out=tmp_path / "b", **QUIET)
    assert [g.label for g in jaxrl_hier.compare([trained, other.directory]).groups] == ["size 3", "size 4"]
    with pytest.raises(UsageError, match="has no folder to compare: train it with out=…"):
        jaxrl_hier.compare([jaxrl_hier.train("test-walker", **QUIET)])


def test_resuming_makes_no_state_either(trained, tmp_path):
    folder = tmp_path / "run"
    jaxrl_hier.train("test-walker", out=folder, **QUIET)
    BEGUN.clear()
    resumed = jaxrl_hier.train("test-walker", out=folder, resume=True, **QUIET | {"iterations": 6})
    jax.effects_barrier()
    assert BEGUN == []
    straight = jaxrl_hier.train("test-walker", **QUIET | {"iterations": 6})
    assert equal(resumed.state, straight.state)


def test_a_picture_that_fails_costs_a_warning_and_not_the_run(registered, tmp_path, monkeypatch, capsys):
    def broken(trained, folder):
        raise AttributeError("no items\nin it")

    monkeypatch.setattr(WALKER.module, "pictures", broken, raising=False)
    folder = tmp_path / "run"
    run = jaxrl_hier.train("test-walker", out=folder, **QUIET)
    assert run.iteration == 4
    assert (folder / "report.json").exists()
    assert capsys.readouterr().err == (
        f"jaxrl-hier: the pictures of {folder} are not complete (AttributeError: no items in it); training is, and "
        "`jaxrl-hier plot` draws them\n"
    )


def test_an_earlier_checkpoint_comes_with_what_was_known_then(trained):
    run = jaxrl_hier.load(trained.directory, iteration=2)
    assert run.iteration == 2
    assert {row["iteration"] for row in run.rows} == {1, 2}
    assert run.evaluation == {}  # the first was made at the end
    np.testing.assert_array_equal(run.state.params["weights"] + 2, trained.state.params["weights"])


def test_a_run_is_evaluated_elsewhere_and_on_other_tasks(trained):
    """The walker steps to the right: within two steps nobody arrives, and within thirty everybody does."""
    run = jaxrl_hier.load(trained.directory)
    assert run.evaluate()["return"].values.shape == (2, 3)
    short = run.evaluate(tasks=single(CorridorParams(max_steps_in_episode=1)))
    assert np.all(short["length"].values == 1)
    few = Tasks(sample=lambda key: CorridorParams(), test=CorridorParams(max_steps_in_episode=jnp.array([30])))
    assert np.all(run.evaluate(tasks=few)["complete"].values)
    assert equal(run.evaluate(env="test-corridor"), run.evaluate())
    message = one_line(UsageError, lambda: run.evaluate(env=Lottery()))
    assert "test-walker on test-corridor has learned does not fit" in message
    assert "weights is [3] and would be [3, 2]" in message


@pytest.mark.parametrize(("how", "said"), [("never", True), ("episode", False), ("constant", False)])
def test_tasks_that_stay_are_said(how, said, capsys):
    """A flat learner with tasks that each environment keeps; with one task alone there is nothing to say."""
    draw = lambda key: CorridorParams(
        max_steps_in_episode=5 if how == "constant" else jax.random.randint(key, (), 2, 9)
    )
    tasks = Tasks(draw, "episode" if how == "episode" else "never")
    small = QUIET | {"iterations": 1, "checkpoint_every": 1, "log_every": 1, "environments": 4, "rollout_length": 8}
    jaxrl_hier.train("a2c", Corridor(), tasks, eval_episodes=2, **small)
    told = "each of the 4 environments keeps the task that it begins with" in capsys.readouterr().err
    assert told == said


@pytest.mark.parametrize("name", ["rl2", "rl3", "varibad"])
def test_trials_of_an_evaluation_may_have_more_episodes_than_in_training(name):
    """Their first episodes are those of the shorter trial; the others go on in it, as a trial of that length is."""
    few, many = 2, 5
    settings = SIZES[name] | QUIET | {"iterations": 1, "checkpoint_every": 1, "log_every": 1}
    settings |= {"episodes_per_trial": few, "eval_tasks": 3, "trial_number": True}
    run = jaxrl_hier.train(name, "tabular-mdp", **settings)
    short, long = (run.evaluate(key=1, eval_episodes=episodes) for episodes in (None, many))
    for measured in ("return", "length", "experience_episodes", "experience_steps"):
        assert long[measured].values.shape == (1, 3, many)
        np.testing.assert_allclose(long[measured].values[..., :few], short[measured].values, rtol=1e-4)
    np.testing.assert_array_equal(long["length"].values, 10)
    np.testing.assert_array_equal(long["experience_steps"].values[0], np.tile(10 * np.arange(many), (3, 1)))
    assert long["complete"].values.all()
    assert "eval_episodes must be positive" in one_line(UsageError, lambda: run.evaluate(eval_episodes=0))


def test_held_out_tasks_that_no_evaluation_plays_are_said(capsys):
    """Evaluations play the first ones, so many as a setting says."""
    at = lambda x: NavigationParams(goal=jnp.stack([x, 0 * x]), max_steps_in_episode=5)
    tasks = Tasks(lambda key: at(jax.random.uniform(key)), test=jax.vmap(at)(jnp.linspace(0.0, 10.0, 9)))
    small = QUIET | {"iterations": 1, "checkpoint_every": 1, "log_every": 1, "hidden": (4,)}
    small |= {"meta_batch_size": 2, "episodes_per_task": 2, "eval_episodes": 1, "eval_inner_steps": 1}
    for count, said in ((4, True), (9, False)):
        jaxrl_hier.train("fomaml", Navigation2D(), tasks, eval_tasks=count, **small)
        told = "evaluations play the first 4 of the 9 held-out tasks; eval_tasks = 9 plays all"
        assert (told in capsys.readouterr().err) == said


def test_an_evaluation_of_more_episodes_and_with_other_numbers(tmp_path):
    """By key: the same measurements again, others with another. By setting: as a run with that setting measures."""
    small = QUIET | {"iterations": 2, "checkpoint_every": 2, "environments": 4, "rollout_length": 8, "seeds": 2}
    run = jaxrl_hier.train("a2c", "CartPole-v1", eval_episodes=4, out=tmp_path / "run", plots=False, **small)
    first, again, other = (run.evaluate(key=key)["return"].values for key in (5, jax.random.key(5), 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, run.evaluation["return"].values)
    assert not np.array_equal(*first)  # seeds play with keys of their own
    more = jaxrl_hier.train("a2c", "CartPole-v1", eval_episodes=32, **small)
    assert equal(run.evaluate(eval_episodes=32), more.evaluation)
    assert equal(jaxrl_hier.evaluate(run.directory, eval_episodes=32)[1], more.evaluation)
    message = one_line(UsageError, lambda: run.evaluate(episodes=3))
    assert message.startswith("unknown setting of an evaluation of a2c 'episodes'; nearest: eval_episodes")
    assert "learning_rate" in one_line(UsageError, lambda: run.evaluate(learning_rate=0.1))
    assert "eval_episodes" in one_line(UsageError, lambda: run.evaluate(eval_episodes=0))


TABULAR = ("q-learning", "sarsa", "smdp-q", "intra-option-q", "option-critic-tabular", "maxq")


@pytest.mark.parametrize("name", TABULAR)
def test_learners_with_tables_are_evaluated_on_held_out_tasks_and_on_others(name):
    """Which of the tasks it was is told by the fewest steps to a goal, for MAXQ by the time limit."""
    env = jaxrl_envs.make("taxi" if name == "maxq" else "four-rooms")[0]
    field, told = ("max_steps_in_episode", "steps") if name == "maxq" else ("goal", "best_steps")
    of = lambda value: env.default_params.replace(**{field: jnp.int32(value)})
    batch = lambda value: jax.tree.map(lambda x: jnp.asarray(x)[None], of(value))
    held_out = lambda first, other: Tasks(lambda key: of(first), test=batch(other))
    found = lambda measured: float(measured[told].values.max())
    train = lambda tasks: jaxrl_hier.train(
        name, env, tasks, **SIZES[name] | QUIET | {"iterations": 2, "checkpoint_every": 2}
    )
    near, far = (3, 9) if name == "maxq" else (1, 100)
    run = train(single(of(far)))
    here, there = found(run.evaluation), found(run.evaluate(tasks=single(of(near))))
    assert here > there
    assert found(run.evaluate(tasks=held_out(far, near))) == there
    assert found(train(held_out(far, near)).evaluation) == there


def test_each_way_to_be_another_run_is_refused(trained, tmp_path):
    """What `engine.identity` tells apart is in its own tests; here: that resuming asks it, with settings and seeds."""
    folder = tmp_path / "run"
    first = dict(env=(Lottery(), lotteries()), out=folder, **QUIET)
    jaxrl_hier.train("test-walker", **first)
    before = sorted(path.name for path in folder.rglob("*"))
    refused = lambda **other: one_line(
        UsageError, lambda: jaxrl_hier.train(**{"name": "test-walker"} | first | other, resume=True)
    )
    assert "environment.box was False and is now True" in refused(env=(Lottery(box=True), lotteries()))
    other = Tasks(lotteries().sample, "never")
    assert "tasks.resample was 'episode' and is now 'never'" in refused(env=(Lottery(), other))
    growing = lambda by: Tasks(lotteries().sample, lambda key, task: task.replace(number=task.number + by))
    jaxrl_hier.train("test-walker", env=(Lottery(), growing(1)), out=tmp_path / "growing", **QUIET)
    another = one_line(
        UsageError,
        lambda: jaxrl_hier.train(
            "test-walker", env=(Lottery(), growing(2)), out=tmp_path / "growing", resume=True, **QUIET
        ),
    )
    assert "is another run: draws of resample: " in another
    assert "config.size was 3 and is now 4" in refused(size=4)
    assert "seed was 0 and is now 1" in refused(seed=1)
    assert "seeds was 1 and is now 2" in refused(seeds=2)
    registry.ALGORITHMS["test-walker-2"] = WALKER
    assert "algorithm was 'test-walker' and is now 'test-walker-2'" in refused(name="test-walker-2")
    del registry.ALGORITHMS["test-walker-2"]
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert jaxrl_hier.train("test-walker", **first | {"iterations": 6}, resume=True).iteration == 6


def test_a_folder_that_is_elsewhere_now_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = jaxrl_hier.train("test-walker", env=Corridor(), out="run", **QUIET)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert one_line(UsageError, run.plot).startswith(f"run is not there, seen from {tmp_path / 'other'}: load the run")


def test_an_environment_without_a_name_is_asked_for(tmp_path):
    folder = tmp_path / "run"
    jaxrl_hier.train("test-walker", env=Corridor(), out=folder, **QUIET)
    message = one_line(UsageError, lambda: jaxrl_hier.load(folder))
    assert "was trained on an object of tests.probes.Corridor, which no name builds: give it as env" in message
    assert jaxrl_hier.load(folder, env=Corridor()).evaluate()["return"].values.shape == (1, 3)
    with pytest.warns(UserWarning, match="max_steps_in_episode was 30 and is now 20") as warned:
        run = jaxrl_hier.load(folder, env=(Corridor(), single(CorridorParams(max_steps_in_episode=20))))
    assert warned[0].filename == __file__
    assert run.changed == ["draws of sample: max_steps_in_episode was 30 and is now 20 at [0]"]


def test_tasks_without_a_name_are_asked_for(tmp_path):
    folder = tmp_path / "run"
    mine = single(CorridorParams(max_steps_in_episode=7))
    jaxrl_hier.train("test-walker", tasks=mine, out=folder, **QUIET)
    assert "tasks of your own, which no name builds: give them as tasks" in one_line(
        UsageError, lambda: jaxrl_hier.load(folder)
    )
    assert jaxrl_hier.load(folder, tasks=mine).changed == []


def test_a_name_that_builds_something_else_by_now_is_refused(trained, monkeypatch):
    longer = lambda: (Corridor(), single(CorridorParams(max_steps_in_episode=99)))
    monkeypatch.setitem(env_registry.ENVIRONMENTS, "test-corridor", env_registry.Entry(longer, ""))
    message = one_line(UsageError, lambda: jaxrl_hier.load(trained.directory))
    assert "was trained on something else than test-corridor is now: draws of sample: max_steps_in_episode" in message
    monkeypatch.delitem(env_registry.ENVIRONMENTS, "test-corridor")
    message = one_line(UsageError, lambda: jaxrl_hier.load(trained.directory))
    assert "unknown environment 'test-corridor'" in message
    assert "if it is your own, give it as env" in message


def test_a_run_of_an_older_version_is_loaded(trained, tmp_path):
    """It has the name of its environment, and nothing else of it."""
    import shutil

    folder = tmp_path / "old"
    shutil.copytree(trained.directory, folder)
    (folder / "identity.npz").unlink()
    about = json.loads((folder / "config.json").read_text())
    for name in ("environment", "tasks", "own_tasks"):
        del about["identity"][name]
    (folder / "config.json").write_text(json.dumps(about))
    assert equal(jaxrl_hier.load(folder).state, trained.state)
    about["identity"]["env"] = "Corridor"  # the name of a class, as it was kept for an object
    (folder / "config.json").write_text(json.dumps(about))
    assert "give it as env" in one_line(UsageError, lambda: jaxrl_hier.load(folder))
    assert equal(jaxrl_hier.load(folder, env=Corridor()).state, trained.state)
    del about["identity"]["config"]["eval_episodes"]  # a setting that this version did not have
    about["identity"]["env"] = "test-corridor"
    (folder / "config.json").write_text(json.dumps(about))
    resumed = jaxrl_hier.train("test-walker", seeds=2, out=folder, resume=True, **QUIET)
    assert equal(resumed.evaluation, trained.evaluation)
    about["identity"]["config"]["sighs"] = 3
    (folder / "config.json").write_text(json.dumps(about))
    assert "has no setting sighs" in one_line(UsageError, lambda: jaxrl_hier.load(folder))


def test_published_values_are_not_set_beside_tasks_of_ones_own(trained):
    """Nor beside what a run was evaluated or loaded on instead."""
    from dataclasses import replace

    value = SimpleNamespace(Config=Config, make=make, published=lambda config, env_name: env_name)
    registry.ALGORITHMS["test-published"] = registry.Entry(value, env="test-corridor", summary="")
    run = replace(trained, name="test-published")
    assert run.published == "test-corridor"
    assert replace(run, own_tasks=True).published is None
    assert replace(run, changed=["tasks.resample was"]).published is None
    del registry.ALGORITHMS["test-published"]
    mine = single(CorridorParams(max_steps_in_episode=7))
    assert jaxrl_hier.train("test-walker", tasks=mine, **QUIET).own_tasks
    assert not trained.own_tasks


def test_a_run_without_a_folder_or_a_checkpoint_says_so(trained, tmp_path):
    import shutil

    assert "no folder to draw into" in one_line(UsageError, lambda: jaxrl_hier.train("test-walker", **QUIET).plot())
    folder = tmp_path / "young"
    shutil.copytree(trained.directory, folder)
    shutil.rmtree(folder / "checkpoints")
    run = jaxrl_hier.load(folder)
    assert (run.state, run.iteration, len(run.rows)) == (None, 0, len(trained.rows))
    assert "holds no checkpoint" in one_line(UsageError, run.evaluate)
    assert "holds no checkpoint" in one_line(UsageError, lambda: jaxrl_hier.load(folder, iteration=4))
    assert "iteration must be a whole number" in one_line(UsageError, lambda: jaxrl_hier.load(folder, iteration=2.0))
    assert run.plot()


# What users bring


def test_names_are_registered_once():
    jaxrl_envs.register("test-corridor", Corridor, "a corridor")  # the same again, as when a module is imported twice
    for wrong in (
        lambda: jaxrl_envs.register("test-corridor", Lottery),
        lambda: jaxrl_envs.register("a:b", Corridor),
        lambda: jaxrl_envs.register("mine", Corridor()),
    ):
        one_line(ValueError, wrong)
    for wrong, message in (
        (lambda: jaxrl_hier.register("maml", WALKER.module, env="taxi"), "an algorithm called maml already"),
        (lambda: jaxrl_hier.register("a:b", WALKER.module, env="taxi"), "has no colon"),
        (lambda: jaxrl_hier.register("mine", SimpleNamespace(make=make), env="taxi"), "has no Config"),
    ):
        assert message in one_line(UsageError, wrong)
    assert "test-corridor" in jaxrl_envs.names()
    assert registry.summaries()["test-walker"] == "walks"


MODULE = """
from tests.probes import Corridor, CorridorParams
from jaxrl_envs.tasks import single
from tests.test_run import WALKER

env = Corridor()
pair = Corridor(), single(CorridorParams(max_steps_in_episode=5))
nothing = lambda: 3

def make():
    return pair

class Nested:
    inner = Corridor
"""


def test_import_paths_are_names(tmp_path, monkeypatch):
    """Of a function, a class, an environment, a pair, and of an algorithm's Entry, in the working directory."""
    (tmp_path / "my_things.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    limit = lambda name: jaxrl_envs.make(name)[1].time_limit()
    assert [limit(f"my_things:{name}") for name in ("env", "pair", "make", "Corridor", "Nested.inner")] == [
        30,
        5,
        5,
        30,
        30,
    ]
    run = jaxrl_hier.train("my_things:WALKER", "my_things:make", out=tmp_path / "run", **QUIET)
    again = {"env": "my_things:make", "algorithm": "my_things:WALKER"}
    assert equal(jaxrl_hier.load(tmp_path / "run", **again).evaluate(), run.evaluation)
    assert equal(jaxrl_hier.evaluate(tmp_path / "run", **again)[1], run.evaluation)
    for part, what in (("env", "environment"), ("algorithm", "algorithm")):
        message = one_line(UsageError, lambda part=part: jaxrl_hier.load(tmp_path / "run", **again | {part: None}))
        assert f"names its {what} by an import path, '{again[part]}'" in message
    for path, message in {
        "my_things:mke": "my_things has no mke; nearest: make",
        "my_thongs:make": "there is no module my_thongs",
        "my_things:nothing": "must make an environment, or a pair of one and its Tasks; it makes int",
        "my things:make": "an import path is written module:name",
        "my_things:": "an import path is written module:name",
    }.items():
        assert message in one_line(UsageError, lambda path=path: building.environment(path))
    assert "must be a jaxrl_hier.registry.Entry" in one_line(UsageError, lambda: registry.entry("my_things:make"))


def test_entry_points_of_other_packages_are_names(monkeypatch):
    points = {
        env_registry.GROUP: [metadata.EntryPoint("their-corridor", "tests.probes:Corridor", env_registry.GROUP)],
        registry.GROUP: [metadata.EntryPoint("their-walker", "tests.test_run:WALKER", registry.GROUP)],
    }
    monkeypatch.setattr(metadata, "entry_points", lambda group: points[group])
    assert "their-corridor" in jaxrl_envs.names()
    assert "their-walker" in registry.summaries()
    assert isinstance(jaxrl_envs.make("their-corridor")[0], Corridor)
    assert registry.entry("their-walker").summary == "walks"
    assert "their-walker" in one_line(UsageError, lambda: registry.entry("their-walkers"))
