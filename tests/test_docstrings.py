"""Every public module, class and function says what it is, and functions of arrays name shapes."""

import importlib
import inspect
import pkgutil
from typing import get_args

import jax
import pytest

import jaxrl_envs
import jaxrl_hier

MODULES = [
    name
    for package in (jaxrl_hier, jaxrl_envs)
    for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


def public(name):
    """What a module itself defines without an underscore, by name."""
    return {
        key: value
        for key, value in vars(importlib.import_module(name)).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == name and callable(value)
    }


def has_arrays(function):
    """Whether a function takes or returns arrays, alone or in tuples; keys have no shape worth a word."""
    signature = inspect.signature(function)
    taken = [p.annotation for p in signature.parameters.values() if not p.name.startswith("key")]
    return any(jax.Array in (kind, *get_args(kind)) for kind in (*taken, signature.return_annotation))


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_docstrings(name):
    assert importlib.import_module(name).__doc__
    named = {key: value for key, value in public(name).items() if inspect.isfunction(value) or inspect.isclass(value)}
    # a dataclass or NamedTuple without a docstring gets its signature as one
    assert [key for key, value in named.items() if (value.__doc__ or f"{key}(").startswith(f"{key}(")] == []


@pytest.mark.parametrize("name", MODULES)
def test_functions_of_arrays_name_shapes(name):
    functions = {key: inspect.unwrap(value) for key, value in public(name).items()}
    arrays = {key: f for key, f in functions.items() if inspect.isfunction(f) and has_arrays(f)}
    assert [key for key, f in arrays.items() if "[" not in (f.__doc__ or "")] == []
