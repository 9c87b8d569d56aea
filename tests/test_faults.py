"""Runs survive faults on purpose; see `tests.faults`, whose whole campaign is a command."""

import subprocess
import sys

from tests.faults import FULL, LEARNERS, cases


def test_the_campaign_has_as_many_faults_as_it_says():
    for kind, least in {
        "kill -9": 200,
        "SIGTERM": 50,
        "full disk": 30,
        "damaged file": 100,
        "concurrent start": 40,
    }.items():
        chosen = [case for case in cases(FULL) if case.kind == kind]
        assert sum(case.faults for case in chosen) == sum(FULL[kind].values()) >= least
        assert {case.learner for case in chosen} == set(LEARNERS)
        assert len({case.name for case in chosen}) == len(chosen)


def test_a_short_campaign_spoils_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--short"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
