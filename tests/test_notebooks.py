"""The notebooks run from top to bottom, draw what they should, and are committed without outputs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"
PICTURES = {"first_hour_options": 5, "first_hour_meta_rl": 2}


def test_these_are_all():
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == sorted(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_it_is_committed_without_outputs(name):
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", 4)
    nbformat.validate(book)
    assert [cell.outputs for cell in book.cells if cell.get("outputs")] == []


def shorten(cell):
    """Train until the first logged row: how well something is learned is for other tests."""
    if logged := re.search(r"log_every=(\d+)", cell.source):
        cell.source = re.sub(r"\biterations=\d+", f"iterations={logged[1]}", cell.source)


@pytest.mark.parametrize("name", PICTURES)
def test_it_runs(name, tmp_path, monkeypatch):
    for ours in ("MPLBACKEND", "XLA_FLAGS"):  # figures are shown, and programs optimised, as a reader has it
        monkeypatch.delenv(ours, raising=False)
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", 4)
    for cell in book.cells:
        shorten(cell)
    NotebookClient(book, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == PICTURES[name]
    assert [output for output in outputs if output.get("name") == "stderr"] == []
