"""What a plain pytest leaves out exists under the names that `lanes` gives."""

import re
from pathlib import Path

import pytest

from tests.lanes import THOROUGH, is_thorough

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("file", THOROUGH)
def test_patterns_name_tests(file):
    names = re.findall(r"^def (test_\w+)", (FOLDER / file).read_text(), re.MULTILINE)
    beginnings = [re.match(r"\w+", pattern) for pattern in THOROUGH[file]]
    assert all(beginnings)
    assert [b[0] for b in beginnings if not any(name.startswith(b[0]) for name in names)] == []


def test_one_of_a_kind_stays():
    assert is_thorough("tests/engine/test_train.py::test_eight_devices_agree_with_one[maml]")
    assert not is_thorough("tests/engine/test_train.py::test_eight_devices_agree_with_one[dqn]")
    assert not is_thorough("tests/test_lanes.py::test_patterns_name_tests[test_cli.py]")
