"""Modules that are imported when something uses them first.

gymnax imports seaborn and pyplot with all its environments, for drawings that training never asks for, and these import
pandas and scipy.stats: more than half of the time that `import gymnax` takes. The command line leaves them for later;
importing the package in Python changes no other module.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class LateModule(ModuleType):
    """Stands for a module until one of its attributes is asked for; then the module itself takes its place."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # programs that look through `sys.modules` ask for these
            raise AttributeError(f"module {self.__name__!r} is not loaded yet and has no {name!r}")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def import_late(*names: str) -> None:
    """Put a LateModule in the place of each module that is installed and not loaded yet; its package is imported."""
    for name in names:
        package, _, child = name.rpartition(".")
        if name not in sys.modules and find_spec(package or name):
            late = LateModule(name)
            late.__spec__ = ModuleSpec(name, None)  # without one, `find_spec` raises an error
            sys.modules[name] = late
            if package:
                setattr(import_module(package), child, late)
