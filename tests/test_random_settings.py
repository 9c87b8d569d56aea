"""Random settings of every algorithm, see `tests.settings`."""

from zlib import crc32

import numpy as np
import pytest

from jaxrl_hier import registry
from tests import settings

NAMES = list(registry.ALGORITHMS)
EACH = settings.MEMBERS  # of each algorithm


def draws(name: str, purpose: int) -> np.random.Generator:
    """The same for an algorithm whatever stands beside it in the registry."""
    return np.random.default_rng([purpose, crc32(name.encode())])


@pytest.mark.parametrize("name", NAMES)
def test_valid_settings_stay_finite(name):
    random = draws(name, 0)
    assert not settings.stays_finite(settings.program_of(name, random))


@pytest.mark.parametrize("name", NAMES)
def test_invalid_settings_are_one_line_and_exit_code_2(name):
    random = draws(name, 1)
    assert not list(filter(None, (settings.refusal(name, settings.invalid(name, random)) for _ in range(EACH))))
