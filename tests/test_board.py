"""The page to search in a browser: it filters, sorts and zooms without a network, and fits a phone."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import pages

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed: apt-get install chromium")
ROWS = [row for result in pages.load(ROOT / pages.RESULTS).values() for row in result.rows]


def opened(page: Path, hash: str = "", width: int = 1200) -> str:
    """The document after its scripts have run."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += ["--virtual-time-budget=10000", "--dump-dom", f"{page.as_uri()}#{hash}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def lines(document: str) -> list[list[str]]:
    """The cells of the table's rows, as text."""
    body = document.split("<tbody>")[1].split("</tbody>")[0]
    text = lambda cell: html.unescape(re.sub(r"<[^>]+>", " ", cell)).strip()
    return [[text(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", row)] for row in body.split("</tr>")[:-1]]


def test_filters():
    shown = lines(opened(ROOT / pages.BOARD, "verdict=short"))
    assert len(shown) == sum(row.get("verdict") == "short" for row in ROWS)
    assert {cells[4] for cells in shown} == {"✗ short"}


def test_sorts_what_words_and_a_paper_select():
    document = opened(ROOT / pages.BOARD, "page=pearl&text=episodes context&sort=ours&down=1")
    wanted = [row for row in ROWS if "episodes of context: return" in row.get("label", "")]
    wanted = sorted((row for row in wanted), key=lambda row: -row["ours"])
    found = [cells for cells in lines(document) if "context: return" in cells[1] and "another" not in cells[1]]
    assert [cells[2] for cells in found] == [pages.measured(row) for row in wanted]
    assert document.split("<script>")[0].count("<figure>") == 2  # PEARL's


def test_zooms_a_picture_and_fits_a_phone(tmp_path):
    for folder in ("papers", "maml", "throughput"):
        (tmp_path / folder).symlink_to(ROOT / pages.RESULTS / folder)
    script = """<script>
    document.querySelector("figure button").click();
    const seen = dialog.querySelector("img");
    seen.onload = () => { document.title = `${dialog.open} ${seen.naturalWidth > 300} `
      + `${document.documentElement.scrollWidth <= innerWidth}`; };
    </script></body>"""
    copy = tmp_path / "index.html"
    copy.write_text((ROOT / pages.BOARD).read_text().replace("</body>", script))
    assert "<title>true true true</title>" in opened(copy, "page=rl2", width=500)
