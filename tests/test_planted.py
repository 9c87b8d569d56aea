"""Every planted error can be planted; `python -m tests.planted` counts those that the tests notice."""

from pathlib import Path

import pytest

from tests.planted import Planted, load

ENTRIES = load()


@pytest.mark.parametrize("area", sorted({e.area for e in ENTRIES}))
def test_errors_apply_and_name_tests_that_exist(area):
    problems = [f"{e.name}: {problem}" for e in ENTRIES if e.area == area and (problem := e.problem())]
    assert not problems, "\n".join(problems)


def test_there_are_enough_of_every_area():
    assert len(ENTRIES) >= 120
    learners = "q_learning sac td3 dqn hindsight uvfa options smdp_q intra_option_q option_critic option_critic_tabular"
    learners += " option_ppo maxq fun hiro maml inner outer estimators rl2 pearl varibad few_shot_regression"
    engine = "rollout loops replay train evaluation sharding"
    planted_in = {Path(e.file).stem for e in ENTRIES}
    assert set(f"{learners} {engine}".split()) <= planted_in


def test_names_are_unique():
    names = [e.name for e in ENTRIES]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})


def test_stale_or_broken_entries_are_told(tmp_path):
    (tmp_path / "jaxrl_hier").mkdir()
    (tmp_path / "jaxrl_hier" / "a.py").write_text("x = 1 + 2\ny = 1\n")
    (tmp_path / "test_a.py").write_text("def test_x():\n    assert True\n")
    entry = lambda old, new, test="test_a.py": Planted("a", "a", "jaxrl_hier/a.py", old, new, (test,))
    assert entry("1 + 2", "1 - 2", "test_a.py::test_x[1]").problem(tmp_path) is None
    for broken, expected in (
        (entry("1 * 2", "1"), "got 0 times"),
        (entry("1", "2"), "got 2 times"),
        (entry("1 + 2", "1 +"), "does not compile"),
        (entry("1 + 2", "1  +  2"), "means the same"),
        (entry("1 + 2", "1", "test_a.py::test_y"), "do not exist"),
        (entry("1 + 2", "1", "test_b.py"), "do not exist"),
    ):
        assert expected in broken.problem(tmp_path)
