"""Two runs of the same seeds, in two processes, are equal bit for bit. `python -m benchmarks determinism` tries all."""

from benchmarks import determinism
from jaxrl_hier import registry


def test_every_preset_has_a_small_size():
    for name in registry.ALGORITHMS:
        assert determinism.small(name)


def test_two_runs_on_eight_devices_are_equal(tmp_path):
    path = determinism.measure(["q-learning", "sac"], tmp_path, counts=[8])
    assert '"ours": 0.0' in path.read_text()
    assert "short" not in path.read_text()
