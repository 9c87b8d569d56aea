"""Modules that are imported when something uses them first."""

import subprocess
import sys

import pytest

from jaxrl_hier.late_imports import LateModule, import_late

USES = """
import sys
from jaxrl_hier import cli
try:
    cli.main(["train", "dqn", "--no-such-setting", "1"])
except SystemExit:
    pass
import jaxrl_envs
jaxrl_envs.make("CartPole-v1")
assert "jaxrl_hier.flat.dqn" in sys.modules
assert not {"scipy.stats", "pandas", "seaborn.utils", "matplotlib.figure"} & sys.modules.keys()
import matplotlib.pyplot
assert callable(matplotlib.pyplot.subplots) and "matplotlib.figure" in sys.modules
"""


def test_the_command_line_leaves_what_gymnax_draws_with_for_later():
    done = subprocess.run([sys.executable, "-c", USES], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_a_module_takes_its_place_when_it_is_used(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    import_late("colorsys", "not_installed_at_all")
    assert "not_installed_at_all" not in sys.modules
    late = sys.modules["colorsys"]
    assert isinstance(late, LateModule)
    assert not hasattr(late, "__file__")
    assert sys.modules["colorsys"] is late  # asking for that loads nothing
    assert late.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
    assert not isinstance(sys.modules["colorsys"], LateModule)
    import_late("colorsys")
    assert not isinstance(sys.modules["colorsys"], LateModule)
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = late.nothing_of_that_name
