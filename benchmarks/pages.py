"""The pages of results and the tables of README and guides, written from the result files.

    python -m benchmarks report    # writes docs/results, benchmarks/results/index.html, tables of README and guides
    python -m benchmarks check     # says, among other things, which of them differ from their files

Every number comes from a file in benchmarks/results. What no file says stands in benchmarks/papers.toml: the figures
and tables that a paper has, what a result shows, why something falls short. A text there refers to numbers in braces:

    {5-shot, MAML: 1 gradient step}       the row of this label: number and interval
    {maml_sinusoid: 5-shot, …}            of another file than the text's own
    {… @ ours}                            one of `FIELDS`, such as interval, percent, published, exact, theirs, ratio
    {… @ 2}                               its number with two digits
    {least REGEX}, {most REGEX}           the row with the smallest, the largest number of those that match
    {count REGEX}                         how many rows match
    {# reached}, {# reached REGEX}        how many rows have this verdict (and match)
    {/memory/0/temporary_mib}             any number of the file, by its path

The label of a throughput row is "what; unit; peer". A reference that leads nowhere is an error.
"""

import html
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxrl_hier.checks import UsageError

from .results import REPOSITORY

SOURCE = Path(__file__).parent
RESULTS = "benchmarks/results"  # in the repository
PAGES = "docs/results"
BOARD = f"{RESULTS}/index.html"
MARKS = {"reached": "✓", "more": "✓", "short": "✗", "open": "?"}  # in tables with several columns
GENERATED = "<!-- Written by `python -m benchmarks report` from benchmarks/results and benchmarks/papers.toml. -->"
FLAT = 24  # rows of a file without `tables` in papers.toml that are shown at once


def write(repository: Path = REPOSITORY) -> list[Path]:
    """Write all pages of a checkout, delete those that are no longer made, and return the paths written."""
    texts = pages(repository)
    for name in stray(repository, texts):
        (repository / name).unlink()
    for name, text in texts.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    return [repository / name for name in texts]


def differences(repository: Path = REPOSITORY) -> list[str]:
    """The pages, by their paths in the repository, that are not what their files make, or that nothing makes."""
    texts = pages(repository)
    differ = [n for n, t in texts.items() if not (repository / n).exists() or (repository / n).read_text() != t]
    return differ + stray(repository, texts)


def stray(repository: Path, texts: Mapping[str, str]) -> list[str]:
    """Pages in docs/results that are not among `texts`."""
    found = (f"{PAGES}/{path.name}" for path in sorted((repository / PAGES).glob("*.md")))
    return [name for name in found if name not in texts]


def pages(repository: Path = REPOSITORY) -> dict[str, str]:
    """Path in the repository -> text, of every page.

    Raises:
        UsageError: a text refers to a row that is not there, or a result file or picture is on no page.
    """
    results, about = load(repository / RESULTS), tomllib.loads((SOURCE / "papers.toml").read_text())
    require_complete(results, about["page"], repository / RESULTS)
    texts = {f"{PAGES}/{page['name']}.md": paper_page(page, results) for page in about["page"]}
    texts[f"{PAGES}/index.md"] = index_page(about, results)
    for name, tables in {"README.md": readme_tables(about, results), **guide_tables(about, results)}.items():
        texts[name] = with_tables((repository / name).read_text(), tables, name)
    texts[BOARD] = board((SOURCE / "board.html").read_text(), about["page"], results)
    return texts


def require_complete(results: Mapping[str, "Result"], listed: list[dict], folder: Path) -> None:
    """Raise UsageError unless each result file and picture is on exactly one page."""
    shown = [result["name"] for page in listed for result in page["result"]]
    pictures = [picture for page in listed for result in page["result"] for picture in result.get("pictures", {})]
    there = {str(path.relative_to(folder)) for path in folder.glob("*/*") if path.suffix in (".png", ".gif")}
    for what, on_pages, found in (("result file", shown, set(results)), ("picture", pictures, there)):
        if twice := sorted({name for name in on_pages if on_pages.count(name) > 1}):
            raise UsageError(f"benchmarks/papers.toml shows the {what} {', '.join(twice)} twice")
        if missing := sorted(set(on_pages) - found):
            raise UsageError(f"benchmarks/papers.toml shows a {what} that is not there: {', '.join(missing)}")
        if extra := sorted(found - set(on_pages)):
            raise UsageError(f"a {what} is on no page, add it to benchmarks/papers.toml: {', '.join(extra)}")


# Result files


@dataclass(frozen=True)
class Result:
    """One result file."""

    name: str
    file: str  # in benchmarks/results
    content: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for row in self.content.get("rows", []) if label_of(row)]

    @cached_property
    def by_label(self) -> dict[str, dict[str, Any]]:
        return {label_of(row): row for row in reversed(self.rows)}  # of rows of one label the first

    def row(self, label: str) -> dict[str, Any]:
        """Of this label, or the extreme one that "least REGEX" or "most REGEX" names."""
        word, _, pattern = label.partition(" ")
        matching = [row for row in self.rows if re.search(pattern, label_of(row))] if word in ("least", "most") else []
        if label in self.by_label:
            return self.by_label[label]
        if not matching:
            near = get_close_matches(label, self.by_label, 2)
            meant = f"; near it are {' and '.join(map(repr, near))}" if near else ""
            raise UsageError(f"benchmarks/papers.toml: {self.file} has no row {label!r}{meant}")
        return (min if word == "least" else max)(matching, key=lambda row: row["ours"])


def label_of(row: Mapping[str, Any]) -> str:
    """Of a row of a paper's or a throughput file; "" for a row of neither."""
    if "what" in row:
        return "; ".join(str(row[name]) for name in ("what", "unit", "peer") if row.get(name))
    return row.get("label", "")


def load(folder: Path) -> dict[str, Result]:
    """The result files by name."""
    return {
        path.stem: Result(path.stem, str(path.relative_to(folder)), json.loads(path.read_text()))
        for path in sorted(folder.glob("*/*.json"))
    }


# Numbers


def decimals_of(row: Mapping[str, Any]) -> int | None:
    """So many that half of a row's interval has two digits, negative from ten thousand on; None if it has no width."""
    low, high = row.get("interval") or (None, None)
    if row["ours"] is None or low is None or high is None or high - low <= 1e-9 * abs(row["ours"]):
        return None
    decimals = 1 - math.floor(math.log10((high - low) / 2))
    return max(decimals, 0) if abs(row["ours"]) < 10_000 else decimals


def number(x: float | None, decimals: int | None = None) -> str:
    """As text with a true minus sign, and thin spaces from ten thousand on; None is infinite.

    decimals: default: four digits, without zeros behind them.
    """
    if x is None:
        return "∞"
    size = abs(x)
    places = decimals if decimals is not None else 3 - math.floor(math.log10(size)) if 0 < size < 1000 else 0
    text = f"{round(x, places) + 0.0:.{max(places, 0)}f}"
    if decimals is None and "." in text:
        text = text.rstrip("0").rstrip(".")
    if size >= 10_000:
        text = f"{float(text):,.{max(places, 0)}f}".replace(",", "\u202f")
    return text.replace("-", "−")


def digits(x: float, count: int) -> str:
    """The number with so many digits."""
    return number(float(f"{x:.{count}g}"))


def measured(row: Mapping[str, Any]) -> str:
    """A row's number with its interval."""
    if not row.get("interval"):
        return number(row["ours"])
    ours, low, high = (number(x, decimals_of(row)) for x in (row["ours"], *row["interval"]))
    return f"{ours} [{low},\u00a0{high}]"


def percent(row: Mapping[str, Any]) -> str:
    """A row's share in per cent, with its interval."""
    ours, low, high = (f"{100 * x:.1f}".replace("-", "−") for x in (row["ours"], *row["interval"]))
    return f"{ours} % [{low},\u00a0{high}]"


def compared(row: Mapping[str, Any]) -> str:
    """What a row's number is compared with, "" if nothing."""
    if row.get("published") is not None:
        low, high = row.get("published_interval") or (None, None)
        half = "" if low is None or high is None else f" ± {digits((high - low) / 2, 2)}"
        return number(row["published"]) + half
    if row.get("exact") is not None:
        return f"{number(row['exact'])} (exact)"
    rule = row.get("rule", "")
    if rule.startswith("meets "):
        low, high = rule.split()[1:]
        return f"{number(float(low))} to {number(float(high))}"
    return "" if rule in ("higher", "lower") else rule


FIELDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "": measured,
    "ours": lambda row: number(row["ours"], decimals_of(row)),
    "percent": percent,
    "interval": lambda row: measured(row).partition(" ")[2],
    "compared": compared,
    "ratio": lambda row: number(row["ratio"], 2 if row["ratio"] < 2 else 1 if row["ratio"] < 20 else 0),
    "published": lambda row: number(row["published"]),
    "exact": lambda row: number(row["exact"]),
    "theirs": lambda row: number(row["theirs"]),
}


def filled(text: str, results: Mapping[str, Result], own: str = "") -> str:
    """The text with the numbers that it refers to; `own`: the file of references that name none."""
    return re.sub(r"\{([^{}]+)\}", lambda found: referred(found[1], results, own), text.strip())


def referred(reference: str, results: Mapping[str, Result], own: str = "") -> str:
    """The number of one reference, see the top of this file."""
    name, _, label = reference.partition(": ")
    if name not in results:
        name, label = own, reference
    if name not in results:
        raise UsageError(f"benchmarks/papers.toml: {{{reference}}} names no result file")
    label, _, field = label.partition(" @ ")
    result = results[name]
    if label.startswith("/"):
        return digits(at(result.content, label), int(field or 4))
    word, _, pattern = label.partition(" ")
    if word in ("#", "count"):
        verdict, _, pattern = pattern.partition(" ") if word == "#" else (None, "", pattern)
        matching = [row for row in result.rows if re.search(pattern, label_of(row))]
        return str(sum(verdict in (None, row.get("verdict")) for row in matching))
    if field.isdigit():
        return digits(result.row(label)["ours"], int(field))
    if field not in FIELDS:
        raise UsageError(f"benchmarks/papers.toml: {{{reference}}} asks for {field!r}, which is none of {list(FIELDS)}")
    return FIELDS[field](result.row(label))


def at(content: Any, path: str) -> float:
    """The number at a path such as "/memory/0/seconds"."""
    for word in path.strip("/").split("/"):
        try:
            content = content[int(word) if isinstance(content, list) else word]
        except (KeyError, IndexError, ValueError) as error:
            raise UsageError(f"benchmarks/papers.toml: no number at {path}") from error
    return content


# Tables


def cell(text: str) -> str:
    """Text that may stand in a Markdown table."""
    return re.sub(r"([|*])", r"\\\1", str(text).replace("\n", " "))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])


def folded(summary: str, header: list[str], rows: list[list[str]]) -> str:
    """A table that opens on a click, as HTML, which Markdown leaves alone."""
    line = lambda tag, cells: "<tr>" + "".join(f"<{tag}>{html.escape(c, quote=False)}</{tag}>" for c in cells) + "</tr>"
    body = "\n".join([line("th", header), *(line("td", row) for row in rows)])
    return f"<details>\n<summary>{html.escape(summary)}</summary>\n<table>\n{body}\n</table>\n</details>"


HEADER = ["", "ours [95 %]", "compared with", "verdict", "from"]


def flat(row: Mapping[str, Any]) -> list[str]:
    """The cells of a row under `HEADER`."""
    unit = row.get("unit", "seeds")
    count = row.get("seeds", 0)
    source = f"{number(count)} {re.sub('(?<!s)s$', '', unit) if count == 1 else unit}" if count else ""
    verdict = row.get("verdict", "").replace("not comparable", "").replace("not claimed", "")
    return [label_of(row), measured(row), compared(row), verdict, source]


def pivot(pattern: str, rows: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The table of the rows that a regular expression matches, and these rows: each in a line, or, with the groups
    `row` and `column`, several in one."""
    found = [(re.search(pattern, label_of(row)), row) for row in rows]
    matching = [(match, row) for match, row in found if match]
    if not matching:
        raise UsageError(f"benchmarks/papers.toml: no row matches {pattern!r}")
    shown = [row for _, row in matching]
    if "column" not in re.compile(pattern).groupindex:
        return table(HEADER, [[cell(c) for c in flat(row)] for row in shown]), shown
    against = [compared(row) for row in shown]
    common = next(iter(set(against) - {""}), "") if len(set(against) - {""}) == 1 else ""
    lines: dict[str, dict[str, str]] = {}
    for (match, row), beside in zip(matching, against):
        mark = MARKS.get(row.get("verdict", ""), "")
        text = "\u00a0".join(filter(None, [measured(row), mark])) + (f"<br>*{beside}*" if beside and not common else "")
        lines.setdefault(match["row"], {}).setdefault(match["column"], text)
    columns = by_number(dict.fromkeys(column for line in lines.values() for column in line))
    body = [[cell(name), *(line.get(column, "") for column in columns)] for name, line in lines.items()]
    text = table(["", *map(cell, columns)], body)
    return (f"{text}\n\nCompared with: {common}." if common else text), shown


def by_number(names: Iterable[str]) -> list[str]:
    """Names that differ in a number alone side by side and sorted by it, such as 1 step, 5 steps, 20 steps."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(re.sub(r"[\d.]+", "#", name).removesuffix("s"), []).append(name)
    key = lambda name: [float(x) for x in re.findall(r"\d+\.?\d*", name)]
    return [name for kind in kinds.values() for name in sorted(kind, key=key)]


def throughput_tables(result: Result, patterns: Sequence[str]) -> list[str]:
    """Tables of a throughput file: its rows, `crossed` where there are patterns; and other lists of records."""
    tables = [crossed(pattern, result.rows) for pattern in patterns]
    if result.rows and not tables:
        header = ["", "unit", "ours", "theirs", "ratio", "peer"]
        tables.append(table(header, [[cell(c) for c in speed(row)] for row in result.rows]))
    for name, value in result.content.items():
        if isinstance(value, list) and value and not label_of(value[0]):
            keys = [key for key in value[0] if not isinstance(value[0][key], (dict, list))]
            text = lambda x: str(x) if isinstance(x, (str, bool)) else number(x)
            body = [[text(record[key]) for key in keys] for record in value]
            tables.append(folded(f"{name}: {len(value)}", [key.replace("_", " ") for key in keys], body))
    return tables


def crossed(pattern: str, rows: list[dict[str, Any]]) -> str:
    """Ours of throughput rows by the groups `row` and `column` of a regular expression, and the peer's in a last
    column."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        match = re.search(pattern, row["what"])
        if not match:
            raise UsageError(f"benchmarks/papers.toml: {pattern!r} does not match {row['what']!r}")
        line = lines.setdefault(match["row"], {})
        line[match["column"]] = digits(row["ours"], 3)
        if row.get("theirs") is not None:
            line[row["peer"]] = digits(row["theirs"], 3)
    columns = list(dict.fromkeys(column for line in lines.values() for column in line))
    peers = {row["peer"] for row in rows}
    columns.sort(key=lambda column: column in peers)  # the peers last, in the order that there is
    body = [[cell(name), *(line.get(column, "") for column in columns)] for name, line in lines.items()]
    return table(["", *map(cell, columns)], body)


def speed(row: Mapping[str, Any]) -> list[str]:
    """The cells of a throughput row."""
    theirs, ratio = row.get("theirs"), row.get("ratio")
    what = row["what"] + (", sum over independent learners" if row.get("aggregate") else "")
    return [
        what,
        row["unit"],
        digits(row["ours"], 3),
        "" if theirs is None else digits(theirs, 3),
        "" if ratio is None else FIELDS["ratio"](row),
        row.get("peer") or "",
    ]


# Pages


def paper_page(page: dict[str, Any], results: Mapping[str, Result]) -> str:
    """One paper: its figures and tables, then our result files."""
    parts = [GENERATED, f"# {page['title']}"]
    if "paper" in page:
        parts.append(page["paper"])
    if "intro" in page:
        parts.append(filled(page["intro"], results))
    if "figures" in page:
        body = [[cell(filled(text, results)) for text in figure] for figure in page["figures"]]
        parts += ["## Its figures and tables", table(["", "state", "why"], body)]
    for result in page["result"]:
        parts += section(result, results)
    return "\n\n".join(parts) + "\n"


def section(about: dict[str, Any], results: Mapping[str, Result]) -> list[str]:
    """The parts of one result file."""
    result = results[about["name"]]
    parts = [f"## {about['title']}", filled(about.get("text", ""), results, result.name)]
    if result.file.startswith("throughput"):
        parts += throughput_tables(result, about.get("tables", []))
    else:
        parts += paper_tables(result, about.get("tables"))
    parts += [f"![{alt}](../../{RESULTS}/{picture})" for picture, alt in about.get("pictures", {}).items()]
    parts.append(filled(about.get("after", ""), results, result.name))
    parts.append(provenance(result))
    return [part for part in parts if part]


def paper_tables(result: Result, patterns: list[str] | None) -> list[str]:
    """The tables that papers.toml asks for, and a folded one of the other rows."""
    shown: list[dict[str, Any]] = []
    tables = []
    for pattern in patterns if patterns is not None else ["."] if len(result.rows) <= FLAT else []:
        text, rows = pivot(pattern, result.rows)
        tables.append(text)
        shown += rows
    rest = [row for row in result.rows if not any(row is other for other in shown)]
    if rest:
        summary = f"{len(rest)} {'more ' if shown else ''}rows" if len(rest) > 1 else "one more row"
        tables.append(folded(summary, HEADER, [flat(row) for row in rest]))
    return tables


def provenance(result: Result) -> str:
    """Where a result comes from, in two lines."""
    content = result.content
    seconds = content.get("wall_seconds") or content.get("train_seconds")
    took = f"{duration(seconds)} of training" if seconds and "wall_seconds" not in content else duration(seconds)
    compilation = content.get("compile_seconds")
    facts = [
        content.get("device", ""),
        took,
        f"{duration(compilation)} of compilation" if compilation else "",
        content.get("date", ""),
        commits_of(content),
        f"JAX {content['versions']['jax']}" if "jax" in content.get("versions", {}) else "",
        f"[all numbers](../../{RESULTS}/{result.file})",
    ]
    return f"`{command_of(result)}`<br>\n" + " · ".join(fact for fact in facts if fact)


def commits_of(content: Mapping[str, Any]) -> str:
    """The commit of a result, and those of parts that were measured at others."""
    every = dict.fromkeys([content.get("commit"), *(part.get("commit") for part in content.get("parts", {}).values())])
    found = [commit[:8] for commit in every if commit]
    return f"commit{'s' * (len(found) > 1)} {', '.join(found)}" if found else ""


def command_of(result: Result) -> str:
    """The command that makes a result today; its file has the one that made it."""
    if result.file.startswith("throughput/"):
        return f"python -m benchmarks throughput {result.name.rpartition('-')[0]}"
    if result.file.startswith(("robustness/", "scaling/")):
        return result.content["command"]
    scale = result.content.get("scale", "cpu")
    return f"python -m benchmarks run {result.name}" + ("" if scale == "cpu" else f" --scale {scale}")


def duration(seconds: float | None) -> str:
    """In seconds, minutes or hours; "" for None."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def index_page(about: dict[str, Any], results: Mapping[str, Result]) -> str:
    """How to read the numbers, the table of systems, the list of pages, the ten numbers."""
    listed = []
    for page in about["page"]:
        verdicts = [row.get("verdict") for result in page["result"] for row in results[result["name"]].rows]
        states = [figure[1] for figure in page.get("figures", [])]
        cells = [f"[{page['title']}]({page['name']}.md)"]
        cells += [str(states.count(state)) if states else "" for state in ("have", "partly", "missing")]
        cells += [str(verdicts.count("reached") + verdicts.count("more")), str(verdicts.count("short"))]
        listed.append([*cells, str(verdicts.count("open")), str(len(verdicts))])
    parts = [
        GENERATED,
        "# Results",
        filled(about["index"]["intro"], results),
        "## Systems",
        systems_table(about["system"], results, ""),
        "## In numbers",
        numbers_list(about["numbers"], results),
        "## Pages",
        filled(about["index"]["pages"], results),
        table(["", "have", "partly", "missing", "reached", "short", "open", "rows"], listed),
        "## How to read the numbers",
        filled(about["index"]["reading"], results),
    ]
    return "\n\n".join(parts) + "\n"


def systems_table(systems: list[dict[str, Any]], results: Mapping[str, Result], folder: str) -> str:
    """One line per system. folder: of the pages, from where the table stands."""
    prefix, body = "python -m benchmarks run ", []
    for system in systems:
        result = results[system["result"]]
        row = result.row(system["row"])
        against = filled(system.get("published", ""), results, result.name) or compared(row)
        verdict = row.get("verdict", "")
        name = f"[{system['name']}]({folder}{system['page']}.md)"
        command = f"`{command_of(result).removeprefix(prefix)}`"
        body.append([name, cell(system["paper"]), command, cell(against), cell(measured(row)), verdict])
    return table(["", "paper, and what is measured", f"`{prefix}…`", "published", "ours [95 %]", "verdict"], body)


def numbers_list(numbers: list[str], results: Mapping[str, Result]) -> str:
    return "\n".join(f"- {filled(text, results)}" for text in numbers)


def readme_tables(about: dict[str, Any], results: Mapping[str, Result]) -> dict[str, str]:
    """What README has between its marks, by their names."""
    return {
        "systems": systems_table(about["system"], results, f"{PAGES}/"),
        "numbers": numbers_list(about["numbers"], results),
    }


def guide_tables(about: dict[str, Any], results: Mapping[str, Result]) -> dict[str, dict[str, str]]:
    """What pages elsewhere in docs have between their marks: page -> name of the mark -> tables of the result file of
    that name."""
    patterns = {about["name"]: about.get("tables") for page in about["page"] for about in page["result"]}
    shown = lambda name: "\n\n".join(pivot(pattern, results[name].rows)[0] for pattern in patterns[name])
    return {page: {name: shown(name) for name in names} for page, names in about["guides"].items()}


def with_tables(text: str, tables: Mapping[str, str], page: str = "README.md") -> str:
    """The text with `tables` between `<!-- generated: NAME -->` and `<!-- end -->`.

    Raises:
        UsageError: the marks of one are missing.
    """
    for name, content in tables.items():
        before, begin, rest = text.partition(f"<!-- generated: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise UsageError(f"{page} has no place for {name}: <!-- generated: {name} --> … <!-- end -->")
        text = f"{before}{begin}\n{content}\n\n{end}{after}"
    return text


def board(template: str, listed: list[dict[str, Any]], results: Mapping[str, Result]) -> str:
    """The page to search, with all rows as JSON in it; pictures by their paths beside it."""
    groups = []
    for page in listed:
        for about in page["result"]:
            result = results[about["name"]]
            rows = [
                [*(speed_cells(row) if "what" in row else flat(row)), row.get("ours"), row.get("note", "")]
                for row in result.rows
            ]
            facts = {"command": command_of(result)} | {key: result.content.get(key, "") for key in ("device", "date")}
            group = {"page": page["name"], "title": page["title"], "name": about["title"], "file": result.file, **facts}
            groups.append(group | {"rows": rows, "pictures": list(about.get("pictures", {}).items())})
    data = json.dumps(groups, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return template.replace("/*DATA*/[]", data)


def speed_cells(row: Mapping[str, Any]) -> list[str]:
    """The cells of a throughput row under `HEADER`."""
    what, unit, ours, theirs, ratio, peer = speed(row)
    against = f"{theirs}, {peer}; ratio\u00a0{ratio}" if ratio else theirs
    return [f"{what}, {unit}", ours, against, row.get("verdict", "").replace("not comparable", ""), ""]
