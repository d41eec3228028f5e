"""Writes the result tables of README.md and docs/ from the JSON files under experiments/results.

A table stands between `<!-- table FILE -->` and `<!-- end -->`; `FILE#GROUP` takes one group of a benchmark's rows, and
`STEM-*.json#20w1s` that shape of several files: a row per method, a column per file. `--check` only tells whether all
are up to date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from metagvae.evaluation.class_interval import ClassInterval, percent
from metagvae.evaluation.text_table import markdown_table

ROOT = Path(__file__).resolve().parent.parent
# files and column heads that had other names when some of the results were written
MOVED = {
    "docs/results/": "experiments/results/",
    "scripts/fuzz.py": "tools/fuzz.py",
    "scripts/matrix.py": "tools/matrix.py",
    "`experiments.py ": "`experiments/run.py ",
}
HEADS = {"peer": "baseline", "peer's": "baseline's", "wanted": "target"}
BLOCK = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def training(name: str, content: dict[str, Any]) -> str:
    """A method's training, from its card."""
    stem = name.split(" (")[0]
    about = content.get("methods", {}).get(name) or next(
        (about for method, about in content.get("methods", {}).items() if method.startswith(f"{stem}-seed")), {}
    )
    text = about.get("method", "")
    if "training_seconds" in about:
        threads = about["details"].get("provenance", {}).get("threads")
        seconds = about["training_seconds"]
        took = f"{seconds} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        text += f"; {took} on {threads} thread{'s' if threads != 1 else ''}"
    return text


def unclear(row: dict[str, Any]) -> str:
    if row["half_width"] is None:
        return ""
    if not row["clear_of_zero"]:
        return " (not clear of zero)"
    over = over_classes(row)
    return f" (not clear of zero over {over.drawn()})" if over and not over.clear_of_zero else ""


def over_classes(row: dict[str, Any]) -> ClassInterval | None:
    """The interval over classes of a result or a difference; results of before it was measured have none."""
    noted = row.get("over_classes")
    return ClassInterval(**{f.name: noted[f.name] for f in fields(ClassInterval)}) if noted else None


def shown(row: dict[str, Any]) -> str:
    return percent(row["error"], row["half_width"], over_classes(row))


def brackets(results: list[dict[str, Any]]) -> str:
    """Meaning of the brackets in cells, for a legend; empty of results that have none."""
    over = next((found for found in map(over_classes, results) if found), None)
    return f", [that over the {over.drawn()}]" if over else ""


def command(content: dict[str, Any]) -> str:
    """The command that made a result, the seeds of a run taken together as a shell reads them."""
    text = re.sub(r"(\S+-seed)(\d)((?: \1\d)+)", _braced, content["provenance"]["command"])
    line = f"`{text}` at commit {content['provenance']['commit']}."
    for old, new in MOVED.items():
        line = line.replace(old, new)
    return line


def _braced(match: re.Match[str]) -> str:
    seeds = [match[2], *(word[-1] for word in match[3].split())]
    return f"{match[1]}{{{','.join(seeds)}}}"


def label(method: str) -> str:
    """A method's name; joined seeds of one by their number."""
    names = method.split("+")
    stems = {re.sub(r"-seed\d+$", "", name) for name in names}
    return f"{stems.pop()} ({len(names)} seeds joined)" if len(names) > 1 == len(stems) else method


def table(content: dict[str, Any]) -> str:
    """Markdown: a row per method, a column per shape, errors in percent."""
    results = content["results"]
    shapes = sorted({(r["way"], r["shot"]) for r in results})
    deviations = {(s["method"], s["dataset"], s["way"], s["shot"]): s["deviation"] for s in content.get("seeds", [])}
    several = len({r["dataset"] for r in results}) > 1
    mixed = len({r["transductive"] for r in results}) > 1
    named = [*(["data"] if several else []), *(["setting"] if mixed else [])]
    head = ["method", *named, *(f"{way}w {shot}s" for way, shot in shapes), "training"]
    body = [head]
    for method, dataset in dict.fromkeys((r["method"], r["dataset"]) for r in results):
        rows = {(r["way"], r["shot"]): r for r in results if (r["method"], r["dataset"]) == (method, dataset)}
        setting = "transductive" if any(r["transductive"] for r in rows.values()) else "inductive"
        cells = [label(method), *([dataset] if several else []), *([setting] if mixed else [])]
        for shape in shapes:
            r = rows.get(shape)
            text = shown(r) if r else "–"
            spread = deviations.get((method, dataset, *shape))
            cells.append(text + (f" (sd {100 * spread:.2f})" if spread is not None else ""))
        body.append([*cells, training(method, content)])
    lines = [markdown_table(body)]
    r = results[0]
    names = ", ".join(dict.fromkeys(x["dataset"] for x in results))
    lines.append(
        f"\n{names}, {r['split']} split, {r['episodes']} episodes of {r['query']} queries per class, seed {r['seed']}; "
        f"error in %, ± the 95 % interval over episodes{brackets(results)}"
        f"{', sd over training seeds' if deviations else ''}. "
        f"Norm: {', '.join(dict.fromkeys(x['norm'] for x in results))}"
        f"{'' if not any(x['transductive'] for x in results) else ' (some transductive)'}.\n" + command(content)
    )
    if content.get("seeds") and content["differences"]:
        gaps: dict[str, list[str]] = {}
        for d in content["differences"]:
            gap = percent(d["difference"], d["half_width"], over_classes(d), sign="+")
            gaps.setdefault(d["other"], []).append(f"{d['way']}w {d['shot']}s {gap}{unclear(d)}")
        lines.append(f"\nPaired difference from {content['differences'][0]['baseline']}, in points, 95 %:\n")
        lines += [f"- {other}: {', '.join(found)}." for other, found in gaps.items()]
    if content.get("reductions"):
        gains: dict[str, list[str]] = {}
        for r in content["reductions"]:
            gain = f"{100 * r['reduction']:.1f}"
            gain += f" ± {100 * r['half_width']:.1f}" if r["half_width"] is not None else " (two seeds, no interval)"
            gain += f" (without seeds {', '.join(map(str, r['left_out']))})" if r.get("left_out") else ""
            pair = f"{r['other']} against {r['baseline']}"
            gains.setdefault(pair, []).append(f"{r['way']}w {r['shot']}s {gain}{unclear(r)}")
        lines.append("\nError reduction in %, paired by training seed, 95 % over seeds:\n")
        lines += [f"- {pair}: {', '.join(found)}." for pair, found in gains.items()]
    lines += [f"\n{note}" for note in content.get("notes", [])]
    return "\n".join(lines) + "\n"


def plain_table(content: dict[str, Any]) -> str:
    """Markdown of measurements other than errors: ``rows`` of the same keys, the keys being the columns."""
    rows = content["rows"]
    cells = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()] for row in rows]
    lines = [markdown_table([[HEADS.get(name, name) for name in rows[0]], *cells]), ""]
    lines += [content["about"]] if "about" in content else []
    lines.append(command(content))
    return "\n".join(lines) + "\n"


def pivot(pattern: str, shape: str) -> str:
    """Markdown: a row per method, a column per file of the pattern, errors in percent at one shape.

    What the files' names have in common, and a file's own part of it in its methods' names, is left out.
    """
    common = Path(pattern).name.split("*")[0]
    rows: dict[str, dict[str, str]] = {}
    contents = {}
    for path in sorted(ROOT.glob(pattern)):
        column = path.stem.removeprefix(common)
        contents[column] = json.loads(path.read_text(encoding="utf-8"))
        for r in contents[column]["results"]:
            if f"{r['way']}w{r['shot']}s" == shape:
                name = r["method"].split("-seed")[0].removeprefix(common).removesuffix(f"-{column}")
                cell = shown(r)
                rows.setdefault(name, {})[column] = cell
    columns = [column for column in contents if any(column in cells for cells in rows.values())]
    body = [[name, *(cells.get(column, "–") for column in columns)] for name, cells in rows.items()]
    lines = [markdown_table([["", *columns], *body])]
    drawn = dict.fromkeys(content["results"][0]["episodes"] for content in contents.values())
    commits = dict.fromkeys(content["provenance"]["commit"] for content in contents.values())
    lines.append(
        f"\n{shape}, error in %, ± the 95 % interval over {' or '.join(f'{n:,}' for n in drawn)} test episodes"
        f"{brackets([r for content in contents.values() for r in content['results']])}; the "
        f"commands are in `experiments/plan.yaml`; commit {', '.join(commits)}."
    )
    return "\n".join(lines) + "\n"


def renewed(text: str) -> str:
    def fill(match: re.Match[str]) -> str:
        name, _, group = match[2].partition("#")
        if "*" in name:
            return match[1] + pivot(name, group) + match[3]
        content = json.loads((ROOT / name).read_text(encoding="utf-8"))
        if group:
            content["rows"] = content["groups"][group]
        return match[1] + (plain_table if "rows" in content else table)(content) + match[3]

    return BLOCK.sub(fill, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a table is out of date")
    check = parser.parse_args().check
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        old = page.read_text(encoding="utf-8")
        new = renewed(old)
        if new != old:
            stale.append(page.name)
            if not check:
                page.write_text(new, encoding="utf-8")
    print(f"{'out of date' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
