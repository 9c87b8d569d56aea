"""Random settings of every algorithm, see `tests.settings`."""

import numpy as np
import pytest

from jaxrl_hier import registry
from tests import settings

NAMES = list(registry.ALGORITHMS)
EACH = settings.MEMBERS  # of each algorithm


@pytest.mark.parametrize("name", NAMES)
def test_valid_settings_stay_finite(name):
    random = np.random.default_rng([0, NAMES.index(name)])
    assert not settings.stays_finite(settings.program_of(name, random))


@pytest.mark.parametrize("name", NAMES)
def test_invalid_settings_are_one_line_and_exit_code_2(name):
    random = np.random.default_rng([1, NAMES.index(name)])
    assert not list(filter(None, (settings.refusal(name, settings.invalid(name, random)) for _ in range(EACH))))
