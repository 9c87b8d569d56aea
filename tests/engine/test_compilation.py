"""`jit` is `jax.jit`, with an option for XLA on a CPU; elsewhere it is nothing else."""

import jax
import pytest

import jaxrl_hier
from jaxrl_hier.engine.compilation import LEVEL, LEVEL_FLAG, SEQUENTIAL, _is_known


def test_the_level_reaches_the_compiler():
    f = lambda x: x + 1
    assert jaxrl_hier.jit(f, level=1)(1.0) == 2.0
    with pytest.raises(Exception, match="xla_backend_optimization_level"):
        jaxrl_hier.jit(f, level="high")(1.0)


@pytest.mark.parametrize(
    ("backend", "options"), [("cpu", {"compiler_options": {"xla_backend_optimization_level": LEVEL}}), ("gpu", {})]
)
def test_only_on_a_cpu(monkeypatch, backend, options):
    given = {}
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "jit", lambda f, **options: given.update(options))
    jaxrl_hier.jit(lambda x: x, donate_argnums=0)
    assert given == options | {"donate_argnums": 0}


def test_a_level_of_the_environment_holds(monkeypatch):
    given = {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=1")
    monkeypatch.setattr(jax, "jit", lambda f, **options: given.update(options))
    jaxrl_hier.jit(lambda x: x)
    assert "compiler_options" not in given
    jaxrl_hier.jit(lambda x: x, level=3)
    assert given["compiler_options"] == {LEVEL_FLAG: 3}


def test_a_schedule_is_only_asked_of_a_compiler_that_knows_it(monkeypatch):
    assert jaxrl_hier.jit(lambda x: x + 1, sequential=True)(1.0) == 2.0
    assert not _is_known("xla_cpu_no_such_option", 1)
    given = {}
    monkeypatch.setattr(jax, "jit", lambda f, **options: given.update(options))
    monkeypatch.setattr("jaxrl_hier.engine.compilation._is_known", lambda option, value: False)
    jaxrl_hier.jit(lambda x: x, level=1, sequential=True)
    assert SEQUENTIAL[0] not in given["compiler_options"]
