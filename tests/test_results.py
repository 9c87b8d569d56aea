"""Result files: rows keep what their intervals were made of, verdicts follow rules, stale results are found."""

import json
import subprocess

import numpy as np
import pytest

from benchmarks import catalogue, check, stale
from benchmarks.figure import published_arrays
from benchmarks.results import KEPT, REPOSITORY, ROOT, Row, write
from jaxrl_hier.reports import statistics
from jaxrl_hier.reports.statistics import FRACTION

FILES = sorted(ROOT.glob("papers/*.json"))


def test_rows_keep_the_seeds_and_are_made_again_from_them():
    row = Row.measured("a", [1.0, 2.0, 4.0], published=2.0).judged("higher")
    assert row.interval == statistics.mean([1.0, 2.0, 4.0]).interval
    assert (row.seeds, row.method, row.verdict) == (3, "Student's t over 3 seeds", "reached")
    again = Row.from_json(json.loads(json.dumps(row.as_json())))
    assert again.estimated() == row
    again.values[0] = 1.1
    assert again.estimated().interval != row.interval


@pytest.mark.parametrize("statistic", [*statistics.COMPARISONS])
def test_comparisons_keep_both_groups(statistic):
    ours, other = [1.0, 2.0, 4.0, 3.0, 5.0, 2.5], [2.0, 3.0, 3.5, 2.0, 4.0, 5.0]
    row = Row.measured("a", ours, other, statistic=statistic)
    assert (row.values, row.other) == (ours, other)
    assert row.interval == statistics.COMPARISONS[statistic](ours, other).interval
    assert Row.from_json(row.as_json()).estimated() == row


def test_of_many_values_mean_and_deviation_are_enough():
    values = np.random.default_rng(0).normal(size=KEPT + 1)
    row = Row.measured("a", values, unit="tasks")
    assert row.values is None
    assert row.interval == pytest.approx(statistics.mean(values).interval)
    assert Row.from_json(row.as_json()).estimated() == row
    assert Row.measured("a", values[:-1], unit="tasks").values is not None


def test_what_stands_beside_the_mean_from_ten_seeds_on():
    values = np.random.default_rng(0).normal(size=10)
    assert set(Row.measured("a", values).beside) == {"interquartile mean"}
    assert set(Row.measured("a", values, values[::-1] + 1).beside) == {"probability of improvement"}
    assert not Row.measured("a", values[:9]).beside
    assert not Row.measured("a", values, unit="tasks").beside


def test_infinite_values_survive_the_file(tmp_path):
    row = Row.measured("a", [3.0, np.inf, 5.0, 4.0, 2.0, 1.0], statistic="median")
    path = write(tmp_path / "a.json", {"rows": [row.as_json()]})
    assert Row.from_json(json.loads(path.read_text())["rows"][0]).estimated() == row


@pytest.mark.parametrize(
    ("rule", "values", "about", "verdict"),
    [
        ("higher", [1.0, 1.2, 1.1], {"published": 1.0}, "reached"),
        ("higher", [0.8, 0.81, 0.79], {"published": 1.0}, "short"),
        ("higher", [0.8, 0.81, 0.79], {"published": 1.0, "published_interval": (0.7, 1.3)}, "reached"),
        ("higher", [0.98, 1.0, 0.99], {"exact": 1.0}, "reached"),  # its interval holds 1
        ("higher", [0.5, 0.9, 0.8], {"exact": 1.0}, "open"),  # and so does this, which says nothing
        ("higher", [0.5, 0.9, 0.8], {}, "not comparable"),
        ("lower", [0.8, 0.81, 0.79], {"exact": 1.0}, "reached"),
        ("lower", [1.2, 1.21, 1.19], {"exact": 1.0}, "short"),
        ("lower", [1.19, 1.2, 1.21], {"exact": 1.0, "tolerance": 0.3}, "reached"),
        ("above 0", [0.5, 0.6, 0.7], {}, "reached"),
        ("above 0", [-0.1, 0.6, 0.7], {}, "short"),
        ("above 0", [0.5], {}, "short"),  # one seed shows nothing
        ("above 0", [0.5, 0.5], {}, "short"),
        ("below 1", [0.5, 0.6, 0.7], {}, "reached"),
        ("at least 0.6", [0.5, 0.6, 0.7], {}, "reached"),
        ("at most 0.5", [0.5, 0.6, 0.7], {}, "short"),
        ("within 0.1", [-0.05, -0.1, 0.0], {}, "reached"),
        ("meets 3 5", [6.0, 6.1, 6.2], {}, "more"),
        ("meets 3 5", [1.0, 1.1, 1.2], {}, "short"),
        ("meets 3 5", [1.0, 4.1, 6.2], {}, "reached"),
    ],
)
def test_verdicts_follow_rules(rule, values, about, verdict):
    row = Row.measured("a", values, **about).judged(rule)
    assert row.verdict == verdict
    assert Row.from_json(row.as_json()).judged(row.rule).verdict == verdict


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="no rule is called 'better'"):
        Row.computed("a", 1.0).judged("better")


def test_differences_are_told_apart_or_not():
    assert Row.measured("a", [2.0, 2.1, 2.2], [1.0, 1.1, 1.2]).told() == "above"
    assert Row.measured("a", [2.0, 2.1, 2.2], [1.0, 1.1, 3.2]).told() == "not told apart"
    assert Row.measured("a", [2.0], [1.0]).told() == "no interval"
    assert Row.measured("a", [2.0, 2.1], [4.0, 4.1], statistic="ratio").told(1.0) == "below"


def test_lists_of_numbers_are_on_one_line(tmp_path):
    row = Row.measured("a", [0.5, 1.0], bounds=FRACTION).as_json()
    text = write(tmp_path / "x.json", {"rows": [row], "curves": [[1.0, 2.0], [3.0, 4.0]]}).read_text()
    assert '"values": [0.5, 1.0]' in text
    assert "[3.0, 4.0]" in text


def test_recomputing_says_what_changed():
    row = Row.measured("a", [0.0, 0.1, 0.2]).judged("above 0")
    lost = Row.computed("b", 1.0, interval=(0.9, 1.1), seeds=3, method="percentile bootstrap over 3 seeds")
    content = {"rows": [row.as_json() | {"interval": [0.05, 0.15], "verdict": "reached"}, lost.as_json()]}
    lines, made = check.recomputed(content)
    kept_none = "b: has an interval, and keeps no values from which it follows"
    assert len(lines) == 3
    assert "a: verdict reached -> short" in lines
    assert kept_none in lines
    assert made["rows"] == [row.as_json(), lost.as_json()]
    assert check.recomputed(made)[0] == [kept_none]


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_published_intervals_are_those_of_the_published_values(path):
    content = json.loads(path.read_text())
    assert content["commit"]
    assert content["date"]
    assert check.recomputed(content)[0] == []


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.with_suffix(".npz").exists()])
def test_published_rows_follow_from_the_published_arrays(name):
    kept = {row["label"]: row for row in json.loads((ROOT / "papers" / f"{name}.json").read_text())["rows"]}
    made = {row.label: row for row in catalogue.all_figures()[name].rows(published_arrays(name))}
    assert made.keys() == kept.keys()
    for label, row in made.items():
        assert row.verdict == kept[label]["verdict"], label
        np.testing.assert_allclose(row.ours, kept[label]["ours"], rtol=1e-4, atol=1e-6, err_msg=label)


# Stale results


@pytest.fixture
def repository(tmp_path):
    """Two results; "b" is about an environment that it makes by name."""
    sources = {
        "benchmarks/papers/a.py": """\
from jaxrl_hier.flat import dqn
from ..size import N

def main():
    import jaxrl_hier.deep
""",
        "benchmarks/size.py": "N = 1\n",
        "benchmarks/papers/b.py": "import jaxrl_envs\n\nenv = jaxrl_envs.make('rooms')\n",
        "jaxrl_hier/__init__.py": "",
        "jaxrl_hier/flat/__init__.py": "",
        "jaxrl_hier/flat/dqn.py": "from jaxrl_hier import networks\n",
        "jaxrl_hier/networks.py": "x = 1\n",
        "jaxrl_hier/deep.py": "",
        "jaxrl_hier/other.py": "",
        "envs/jaxrl_envs/__init__.py": "_EXPORTS = {'make': 'registry'}\n",
        "envs/jaxrl_envs/registry.py": "def rooms():\n    from jaxrl_envs import rooms, tasks\n",
        "envs/jaxrl_envs/rooms.py": "",
        "envs/jaxrl_envs/tasks.py": "",
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "All")
    return tmp_path


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_imports_are_followed(repository):
    named = lambda strings: {"jaxrl_envs.rooms"} if "rooms" in strings else set()
    files = lambda module: {str(f.relative_to(repository)) for f in stale.sources(module, repository, named)}
    assert files("benchmarks.papers.a") == {
        "benchmarks/papers/a.py",
        "benchmarks/size.py",
        "jaxrl_hier/__init__.py",
        "jaxrl_hier/flat/__init__.py",
        "jaxrl_hier/flat/dqn.py",
        "jaxrl_hier/networks.py",
        "jaxrl_hier/deep.py",
    }
    assert files("benchmarks.papers.b") == {
        "benchmarks/papers/b.py",
        "envs/jaxrl_envs/__init__.py",
        "envs/jaxrl_envs/registry.py",
        "envs/jaxrl_envs/rooms.py",
    }


def test_a_result_is_stale_when_what_it_imports_has_changed(repository):
    since, files = git(repository, "rev-parse", "HEAD"), stale.sources("benchmarks.papers.a", repository)
    for name in ("other", "networks"):
        (repository / f"jaxrl_hier/{name}.py").write_text("x = 2\n")
        git(repository, "commit", "-qam", f"Change {name}")
    assert stale.changed_since(since, files, repository).keys() == {"jaxrl_hier/networks.py"}
    assert "Change networks" in stale.changed_since(since, files, repository)["jaxrl_hier/networks.py"]
    now = git(repository, "rev-parse", "HEAD")
    assert stale.changed_since(now, files, repository) == {}
    (repository / "jaxrl_hier/networks.py").write_text('"""Of nothing."""\nx = 2  # as before\n')
    git(repository, "commit", "-qam", "Describe networks")
    assert stale.changed_since(now, files, repository) == {}


def test_commands_name_modules():
    assert stale.module_of({"command": "python -m benchmarks.throughput.maxq --runs 5"}) == "benchmarks.throughput.maxq"
    assert stale.module_of({"command": "python results.py"}) == ""
    assert stale.module_of({"name": "maml_navigation"}) == "benchmarks.papers.maml_navigation"


def test_environments_made_by_name_are_found():
    assert "jaxrl_envs.point_tasks" in stale.by_name(["point-maze", "a word"])
    assert "jaxrl_envs.bandits" in stale.by_name(["bandit-n*"])
    assert stale.by_name(["a word", "*"]) == set()
    files = stale.sources("benchmarks.papers.hiro_points", REPOSITORY, stale.by_name)
    names = {str(f.relative_to(REPOSITORY)) for f in files}
    assert {"jaxrl_hier/hierarchical/hiro.py", "jaxrl_hier/flat/td3.py"} <= names
    assert "jaxrl_hier/meta/maml.py" not in names
