"""Every public module, class and function says what it is."""

import importlib
import inspect
import pkgutil

import pytest

import jaxrl_envs
import jaxrl_hier

MODULES = [
    name
    for package in (jaxrl_hier, jaxrl_envs)
    for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_docstrings(name):
    module = importlib.import_module(name)
    assert module.__doc__
    public = [
        (key, value)
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == name and callable(value)
    ]
    aliases = {key for key, value in public if not (inspect.isfunction(value) or inspect.isclass(value))}
    # a dataclass or NamedTuple without a docstring gets its signature as one
    missing = [k for k, v in public if k not in aliases and (v.__doc__ or f"{k}(").startswith(f"{k}(")]
    assert missing == []
