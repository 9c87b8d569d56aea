"""Sweeps: every member is the run that `train` makes with its settings, and what cannot work is said in one line."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.tasks import single
from jaxrl_hier import sweeps
from jaxrl_hier.checks import UsageError
from jaxrl_hier.cli import _over, main
from jaxrl_hier.engine.chunk import Evaluation
from jaxrl_hier.engine.train import RunConfig
from jaxrl_hier.flat import q_learning
from jaxrl_hier.sweeps import Range, folders, groups
from jaxrl_hier.sweeps.members import MOST, Member, combinations
from jaxrl_hier.testing import assert_close, assert_equal
from tests.line import Line, Params
from tests.sizes import SIZES

SHORT = {"iterations": 40, "log_every": 20, "checkpoint_every": 20, "evaluate_every": 20, "quiet": True}
LEARNER = {"recorded_episodes": 2, **SHORT}
OVER = {"step_size": [0.1, 0.3], "discount": [0.8, 0.9]}


def same_run(run, alone, equal=assert_equal):
    """State, rows and evaluation of a member and of a run of its own."""
    equal(
        {"params": run.state.params, "world": run.state.world},
        {"params": alone.state.params, "world": alone.state.world},
    )
    untimed = lambda rows: [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]
    if equal is assert_equal:
        assert untimed(run.rows) == untimed(alone.rows)
    assert [row.keys() for row in run.rows] == [row.keys() for row in alone.rows]
    equal(*({k: m.values for k, m in x.evaluation.items()} for x in (run, alone)))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "grid"
    return jaxrl_hier.sweep("q-learning", over=OVER, seeds=2, seed=3, by="steps", lowest=True, out=folder, **LEARNER)


def test_a_member_is_the_run_with_its_settings_and_seeds(swept, tmp_path):
    settings = {"step_size": 0.3, "discount": 0.8, "seeds": 2, "seed": 3, **LEARNER}
    alone = jaxrl_hier.train("q-learning", out=tmp_path / "alone", plots=False, **settings)
    assert [m.changed["step_size"] for m in swept.members] == [0.1, 0.1, 0.3, 0.3]
    same_run(swept.runs[2], alone)
    assert swept.runs[2].settings == alone.settings
    folder, other = swept.runs[2].directory, tmp_path / "alone"
    assert json.loads((folder / "config.json").read_text()) == json.loads((other / "config.json").read_text())
    names = lambda of: sorted(str(p.relative_to(of)) for p in of.glob("*/*") if "seed" not in p.name)
    assert names(folder) == ["checkpoints/40", "evaluations/20.npz", "evaluations/40.npz"]
    assert set(names(other)) == {"checkpoints/20", *names(folder)}


def test_a_members_folder_is_that_of_a_run(swept, tmp_path):
    settings = {"step_size": 0.1, "discount": 0.9, "seeds": 2, "seed": 3, "plots": False, **LEARNER, "iterations": 60}
    resumed = jaxrl_hier.train("q-learning", out=swept.runs[1].directory, resume=True, **settings)
    same_run(resumed, jaxrl_hier.train("q-learning", out=tmp_path / "alone", **settings))


def test_table_and_picture(swept):
    written = swept.save()
    lines = json.loads((swept.directory / "table.json").read_text())
    assert lines == swept.table()
    assert [line["steps"] for line in lines] == sorted(line["steps"] for line in lines)
    assert set(lines[0]) == {"member", "step_size", "discount", "steps", "low", "high", "diverged"}
    assert len((swept.directory / "table.csv").read_text().splitlines()) == 5
    assert [path.name for path in written] == ["table.json", "table.csv", "sweep.png"]
    assert all(path.stat().st_size for path in written)
    values = swept.runs[lines[0]["member"]].evaluation["steps"].values
    assert lines[0]["steps"] == pytest.approx(np.mean(values))
    with pytest.raises(UsageError, match="nearest: steps"):
        swept.table("step")


def test_numbers_of_numpy_and_jax_are_those_of_python(tmp_path):
    """Kept in the folder as such, so that the sweep goes on with either."""
    settings = {**LEARNER, "iterations": 20, "by": "steps", "lowest": True, "out": tmp_path / "sweep"}
    over = {"step_size": np.array([0.1, 0.3]), "discount": [np.float32(0.9), jnp.float32(0.8)]}
    found = jaxrl_hier.sweep("q-learning", over=over, epsilon=np.float64(0.2), **settings)
    assert [m.changed for m in found.members[:2]] == [
        {"step_size": 0.1, "discount": 0.9},
        {"step_size": 0.1, "discount": 0.8},
    ]
    assert found.save()
    plain = {"step_size": (0.1, 0.3), "discount": [0.9, 0.8]}
    again = jaxrl_hier.sweep("q-learning", over=plain, epsilon=0.2, resume=True, **settings)
    assert again.table() == found.table()
    for twice in (np.array([0.1, 0.1]), [0.1, np.float32(0.1)], jnp.array([0.1, 0.1])):
        with pytest.raises(UsageError, match="over has a value of step_size twice"):
            jaxrl_hier.sweep("q-learning", over={"step_size": twice})


def test_a_stopped_sweep_goes_on(swept, tmp_path, monkeypatch):
    """After one stop in the course of training and one while the members' folders are written."""
    settings = {"over": OVER, "seeds": 2, "seed": 3, "by": "steps", "out": tmp_path / "again", **LEARNER}
    with pytest.raises(SystemExit):
        jaxrl_hier.sweep("q-learning", stop=lambda: True, **settings)
    assert not (tmp_path / "again" / "members").exists()
    with pytest.raises(UsageError, match="go on with a sweep by --resume"):
        jaxrl_hier.sweep("q-learning", **settings)
    with pytest.raises(UsageError, match=r"another sweep: members\.0\.discount was 0\.8 and is now None; .* more$"):
        jaxrl_hier.sweep("q-learning", **settings | {"over": {"step_size": [0.1]}}, resume=True)
    with pytest.raises(UsageError, match=r"is another sweep: settings\.iterations was 40 and is now 80"):
        jaxrl_hier.sweep("q-learning", **settings | {"iterations": 80}, resume=True)
    monkeypatch.setattr(folders, "write_report", stopped_at("members/2"))
    with pytest.raises(KeyboardInterrupt):
        jaxrl_hier.sweep("q-learning", **settings, resume=True)
    monkeypatch.undo()
    assert [folders.finished(tmp_path / "again", i) for i in range(4)] == [True, True, False, False]
    assert (tmp_path / "again" / "members" / "2" / "checkpoints").exists()
    found = jaxrl_hier.sweep("q-learning", **settings, resume=True)
    for i in (0, 3):
        same_run(found.runs[i], swept.runs[i])
    assert not (tmp_path / "again" / "groups").exists()
    assert jaxrl_hier.sweep("q-learning", **settings, resume=True).table() == found.table()  # and does nothing


def test_a_finished_sweep_is_not_taken_for_one_of_other_tasks(tmp_path):
    of = lambda target: (Line(), single(Params(target=target)))
    settings = {"over": {"learning_rate": [1e-3]}, "out": tmp_path / "sweep", **SIZES["a2c"], "quiet": True}
    jaxrl_hier.sweep("a2c", *of(0.0), iterations=1, **settings)
    jaxrl_hier.sweep("a2c", *of(0.0), iterations=1, **settings, resume=True)
    with pytest.raises(UsageError, match="is another sweep: draws of sample: target was 0 and is now 1"):
        jaxrl_hier.sweep("a2c", *of(1.0), iterations=1, **settings, resume=True)


def stopped_at(folder):
    """A `write_report` during which the process is stopped, where it is of this folder."""

    whole = folders.write_report

    def write_report(run):
        if str(run.directory).endswith(folder):
            raise KeyboardInterrupt
        whole(run)

    return write_report


def test_structural_settings_have_programs_of_their_own():
    found = jaxrl_hier.sweep("q-learning", over={"environments": [1, 2]}, seeds=2, by="steps", **LEARNER)
    for run, environments in zip(found.runs, (1, 2)):
        same_run(run, jaxrl_hier.train("q-learning", environments=environments, seeds=2, **LEARNER))


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("her-dqn", {"learning_rate": [1e-3, 3e-3], "discount": [0.9, 0.98]}),
        ("few-shot-regression", {"inner_learning_rate": [0.01, 0.1], "max_grad_norm": [None, 1.0]}),
        ("option-critic", {"gae_lambda": [0.9, 1.0]}),
    ],
)
def test_members_that_multiply_matrices_are_close(name, over):
    short = {"iterations": 2, "checkpoint_every": 2, "evaluate_every": 0, "log_every": 1, "quiet": True}
    found = jaxrl_hier.sweep(name, over=over, **SIZES[name], **short)
    last = len(found.members) - 1
    alone = jaxrl_hier.train(name, **SIZES[name], **short, **{k: v[-1] for k, v in over.items()})
    assert_close({"params": found.runs[last].state.params}, {"params": alone.state.params}, 1e-4)


def test_a_member_that_diverges_does_not_end_the_others(tmp_path):
    short = {"iterations": 8, "checkpoint_every": 4, "evaluate_every": 4, "log_every": 4, "quiet": True}
    settings = {"over": {"outer_learning_rate": [1e-3, 1e9]}, "out": tmp_path / "s"}
    found = jaxrl_hier.sweep("few-shot-regression", **settings, **SIZES["few-shot-regression"], **short)
    good, bad = found.table()
    assert (good["member"], good["diverged"]) == (0, "")
    assert bad["return"] is None
    assert " at iteration " in bad["diverged"]
    assert found.runs[1].state is None
    assert found.runs[0].iteration == 8
    assert len(found.plot()) == 1


def test_updates_that_are_left_out_are_told_by_member(capsys):
    short = {"iterations": 8, "log_every": 4, "checkpoint_every": 4, "on_nan": "skip", "quiet": True, "seed": 5}
    over = {"outer_learning_rate": [1e-3, 1e9]}
    jaxrl_hier.sweep("few-shot-regression", over=over, seeds=2, **SIZES["few-shot-regression"], **short)
    said = capsys.readouterr().err
    assert "member 1, seed 6: an update was left out by iteration" in said
    assert "member 0" not in said


# Without compiling


def member(**settings):
    return Member(settings, q_learning.Config(**settings), RunConfig())


def test_presets_give_way_and_what_has_not_been_measured_is_left_blank():
    """Of 10 steps, log_every is 10 and no longer thousands; no episode has ended after them."""
    found = jaxrl_hier.sweep("q-learning", over={"step_size": [0.1]}, iterations=10, recorded_episodes=2, quiet=True)
    assert found.runs[0].settings.log_every == 10
    assert [(line["return"], line["low"], line["diverged"]) for line in found.table()] == [(None, None, "")]
    with pytest.raises(UsageError, match="unknown measurement 'retrun'"):
        found.table("retrun")
    assert repr(found) == "Sweep(q-learning, 1 member, by return)"
    assert repr(found.runs[0]) == "Run(q-learning on four-rooms, 1 seed, iteration 10 of 10)"


def test_grids_and_draws():
    grid = combinations({"a": [1, 2], "b": ["x", None]}, None, 0)
    assert grid == [{"a": 1, "b": "x"}, {"a": 1, "b": None}, {"a": 2, "b": "x"}, {"a": 2, "b": None}]
    assert combinations([{"a": 1}, {"a": 3}], None, 0) == [{"a": 1}, {"a": 3}]
    drawn = combinations({"rate": Range(1e-4, 1e-1, log=True), "size": Range(1, 3), "b": [1, 2]}, 200, seed=1)
    assert drawn == combinations({"rate": Range(1e-4, 1e-1, log=True), "size": Range(1, 3), "b": [1, 2]}, 200, seed=1)
    rates = np.array([d["rate"] for d in drawn])
    assert 1e-4 <= rates.min() <= rates.max() <= 1e-1
    assert 0.35 < np.mean(rates < 10**-2.5) < 0.65  # half of them below the middle of the logarithms
    assert {d["size"] for d in drawn} == {1, 2, 3}
    assert {d["b"] for d in drawn} == {1, 2}


def test_groups_have_one_structure_and_fit():
    members = [member(step_size=s, environments=n) for s in (0.1, 0.2, 0.3) for n in (1, 2)]
    assert groups.groups_of(members, lambda _: 9) == [[0, 2, 4], [1, 3, 5]]
    assert groups.groups_of(members, lambda m: m.config.environments) == [[0], [2], [4], [1, 3], [5]]
    assert groups.groups_of(members, lambda _: 0) == [[0], [2], [4], [1], [3], [5]]
    group = groups.group_of(members, [0, 2])
    assert {k: x.tolist() for k, x in group.numbers.items()} == {"step_size": np.float32([0.1, 0.2]).tolist()}


def test_as_many_run_together_as_fit_into_memory(monkeypatch):
    env, tasks = sweeps.environment("four-rooms")
    one = member(environments=2)
    monkeypatch.setattr(groups, "free_bytes", lambda: None)
    assert groups.members_at_once("q-learning", one, env, tasks) == MOST
    bytes_of = groups.size(groups.initial(groups.built("q-learning", one.config, env, tasks), one.run)[0])
    monkeypatch.setattr(groups, "free_bytes", lambda: 7 * bytes_of)
    assert groups.members_at_once("q-learning", one, env, tasks) == 7 // groups.HELD


def test_values_on_the_command_line():
    assert _over("dqn", ("learning-rate=1e-3,.1", "hidden=8 8,,16", "max_grad_norm=None,.5", "double=True,False")) == {
        "learning_rate": [1e-3, 0.1],
        "hidden": [(8, 8), (), (16,)],
        "max_grad_norm": [None, 0.5],
        "double": [True, False],
    }
    assert _over("dqn", ("learning-rate=1e-4:1e-2:log", "updates=1:4")) == {
        "learning_rate": Range(1e-4, 1e-2, True),
        "updates": Range(1, 4),
    }


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ([{"step_size": 0.1}, {"epsilon": 0.1}], "over needs combinations of the same settings"),
        ([0.1, 0.2], "over needs combinations of the same settings"),
        ({"step_size": 0.1}, "over needs a list of values of step_size, got 0.1"),
        ({"step_size": "0.1"}, "over needs a list of values of step_size, got '0.1'"),
        ({"step_size": []}, r"over needs a list of values of step_size, got \[\]"),
        ([], "a sweep needs over"),
        (3, "over needs values for each setting, or combinations of settings, got 3"),
        ({3: [0.1, 0.2]}, "over has values for each setting by its name, got 3 as a name"),
    ],
)
def test_what_is_nothing_to_sweep_over(over, message):
    with pytest.raises(UsageError, match=message):
        jaxrl_hier.sweep("q-learning", over=over)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"random": 2.5}, "random must be a number of combinations from 1 to 10000, got 2.5"),
        ({"random": "3"}, "random must be a number of combinations from 1 to 10000, got '3'"),
        ({"random": True}, "random must be a number of combinations from 1 to 10000, got True"),
        ({"over": {"epsilon": Range("a", "b")}, "random": 2}, "over needs a range of epsilon between two numbers"),
        ({"over": {"epsilon": Range(None, 1)}, "random": 2}, "over needs a range of epsilon between two numbers"),
        ({"by": 3}, "by must be the name of a measurement, got 3"),
        ({"stop": 3}, "stop must be a function without arguments, got 3"),
        ({"initial": "runs/a"}, "a sweep has no initial: that is for single runs, `train`"),
    ],
)
def test_what_no_sweep_can_be_made_of(arguments, message):
    with pytest.raises(UsageError, match=message):
        jaxrl_hier.sweep("q-learning", **{"over": {"epsilon": [0.1, 0.2]}} | arguments)


def test_a_range_of_a_real_setting_is_of_real_numbers():
    """Also where its ends are whole; that of a setting of whole numbers has whole numbers."""
    drawn = lambda name, over: [
        member.changed for member in sweeps.members_of(name, over, 20, {}, *jaxrl_envs.make("four-rooms"))
    ]
    assert len({member["epsilon"] for member in drawn("q-learning", {"epsilon": Range(0, 1)})}) == 20
    assert {member["environments"] for member in drawn("q-learning", {"environments": Range(1, 3)})} == {1, 2, 3}


def test_what_changes_no_result_may_change_on_resume(tmp_path):
    """And a setting may be said that has its default; what does change results may not."""
    over = {"epsilon": [0.1, 0.2]}
    jaxrl_hier.sweep("q-learning", over=over, out=tmp_path / "sweep", **LEARNER)
    again = LEARNER | {"quiet": False, "checkpoint_every": 40, "plots": False, "step_size": 0.5}
    again["step_size"] = q_learning.Config().step_size
    jaxrl_hier.sweep("q-learning", over=over, out=tmp_path / "sweep", resume=True, **again)
    with pytest.raises(UsageError, match=r"is another sweep: settings.step_size was .* and is now 0.25"):
        jaxrl_hier.sweep("q-learning", over=over, out=tmp_path / "sweep", resume=True, **again | {"step_size": 0.25})
    with pytest.raises(UsageError, match=r"nothing to resume in .*other: it holds no sweep.json of a sweep"):
        jaxrl_hier.sweep("q-learning", over=over, out=tmp_path / "other", resume=True, **LEARNER)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "a sweep needs over, the settings to sweep and their values"),
        ("--over step-size", "--over is written --over learning-rate=1e-3,1e-4, got 'step-size'"),
        ("--over setp-size=.1", "unknown setting of q-learning 'setp-size'; nearest: step-size"),
        ("--over seeds=1,2", "seeds is a setting of the run, the same for all members: it cannot be swept"),
        ("--over step-size=.1,x", "--step-size must be a number, got 'x'"),
        ("--over step-size=.1,2", "step_size must lie in [0, 1], got 2.0"),
        ("--over step-size=.1,.1", "over has a value of step_size twice"),
        ("--over step-size=.1:.2", "over has a range of step_size: say by random how many combinations to draw"),
        ("--over step-size=.2:.1 --random 3", "over needs a range of step_size from low to high, above 0 where"),
        ("--over step-size=0:.1:log --random 3", "over needs a range of step_size from low to high, above 0 where"),
        ("--over step-size=.1:.2:lin --random 3", "--over has ranges written 1e-4:1e-2 or 1e-4:1e-2:log"),
        ("--over step-size=.1,.2 --random 0", "random must be a number of combinations from 1 to 10000, got 0"),
        ("--over step-size=.1,.2 --step-size .3", "step_size is swept, and cannot be set as well"),
        ("--over step-size=.1 --over step_size=.2", "--over has step-size twice: give all of its values at once"),
        ("--over step-size=.1,.2 --by retrun", "unknown measurement 'retrun'; nearest: return"),
        ("--over step-size=.1,.2 --epsilon 2", "epsilon must lie in [0, 1], got 2.0"),
        ("--over step-size=.1,.2 --iterations 3 --log-every 2", "iterations must be a multiple of log_every (2)"),
        ("--over step-size=.1,.2 --keep-best return --evaluate-every 2000", "keep_best is for a single run, not for"),
    ],
)
def test_what_cannot_work_is_one_line_before_anything_compiles(args, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweeps, "train_group", None)
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "q-learning", *args.split(), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert (stop.value.code, error.count("\n")) == (2, 1)
    assert error.startswith(f"jaxrl-hier: {message}")
    assert not (tmp_path / "out").exists()


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "q-learning", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert not stop.value.code
    assert "Settings that share a program: step_size, epsilon, discount, initial_value." in told


def test_places_that_diverge_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluation, "trace", lambda *_: None)  # of states that are none
    trainer = groups.Enduring(jaxrl_hier.make("q-learning"), tmp_path)
    trainer.begin(SimpleNamespace(iteration=np.array([10, 10, 10])), False)
    trainer.length = 5
    state = SimpleNamespace(iteration=np.zeros(3))
    trainer.chunk = lambda state: (state, {}, {"loss": np.array([5, 2, 5]), "params": np.array([5, 4, 4])})
    assert all((at == 5).all() for at in trainer.run(state)[2].values())
    assert trainer.diverged == {1: (13, "loss"), 2: (15, "params")}
    trainer.run(state)
    assert trainer.diverged == {1: (13, "loss"), 2: (15, "params")}  # the first time counts
    for done, known in ((14, {1: (13, "loss")}), (20, trainer.diverged)):
        again = groups.Enduring(trainer.algorithm, tmp_path)
        again.begin(SimpleNamespace(iteration=np.full(3, done)), True)
        assert again.diverged == known
