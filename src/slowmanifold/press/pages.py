"""An executed notebook becomes the page that readers see: figures with captions, claims, the facts of the run."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from slowmanifold.press import api
from slowmanifold.press.chapters import FORMAT, Chapter, with_values
from slowmanifold.press.execute import RECORD, code_cells
from slowmanifold.press.keys import short
from slowmanifold.press.paper_runs import PaperRun
from slowmanifold.press.typography import typeset

FILES = "files"
GLUE = "application/papermill.record/"


def stage(
    chapter: Chapter, executed: NotebookNode | None, folder: Path, notice: str = "", uses: Iterable[str] = ()
) -> None:
    """Write the page of ``chapter`` and its files into ``folder``, the book folder of the staged sources.

    Its foot leads to what it ``uses`` on the page of the package.

    Without a ``notice`` the run is up to date: the page has the prose of today and the outputs of the run. With one,
    the page says so at its head and is that of the run, prose and all; without a run it is the text alone.
    """
    text = executed.metadata[RECORD]["text"] if executed is not None and notice else chapter.text
    page = jupytext.reads(text, fmt=FORMAT)
    if executed is not None:
        files = folder / FILES / chapter.name
        files.mkdir(parents=True)
        (files / chapter.source.name).write_text(text)
        write_notebook(executed, files / f"{chapter.name}.ipynb")
        record = executed.metadata[RECORD]
        fill(page, executed, record, f"{FILES}/{chapter.name}", files)
        page.cells.append(new_markdown_cell(colophon(chapter, record, uses)))
    if notice:
        put_under_title(page, f":::{{attention}}\n{notice}\n:::")
    for number, cell in enumerate(page.cells):
        cell.id = f"cell-{number}"
    page.metadata.pop("jupytext", None)
    write_notebook(page, folder / f"{chapter.name}.ipynb")


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook of ours; nbformat would check each cell once more."""
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def put_under_title(page: NotebookNode, text: str) -> None:
    """Put ``text`` under the title of a page, or at its head where there is none."""
    for cell in page.cells:
        if cell.cell_type == "markdown" and (title := re.search(r"^# .*$", cell.source, re.MULTILINE)):
            cell.source = f"{cell.source[: title.end()]}\n\n{text}\n{cell.source[title.end() :]}"
            return
    page.cells.insert(0, new_markdown_cell(text))


def fill(page: NotebookNode, executed: NotebookNode, record: Mapping[str, Any], link: str, files: Path) -> None:
    """Give the cells of ``page`` their outputs; each figure becomes a cell of its own after the cell that drew it."""
    outputs = iter(zip(code_cells(executed), record["lines"], strict=True))
    filled = []
    for cell in page.cells:
        filled.append(cell)
        if cell.cell_type != "code":
            continue
        run, lines = next(outputs)
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = with_values(cell.source, record["parameters"])
        cell.execution_count = run.execution_count
        cell.outputs = []
        for output in run.outputs:
            told = output.get("metadata", {})
            if "figure" in told:
                write_files(output, files)
                filled.append(new_markdown_cell(figure(told["figure"], strip(record, told, lines, run), link)))
                continue
            if "claim" not in told:
                cell.outputs.append(output)
            else:
                row = {**output.data, "text/html": typeset(output.data["text/html"])}
                cell.outputs.append(NotebookNode({**output, "data": row}))
                cell.outputs.append(glue(told["claim"]))
    page.cells = filled


def glue(claim: Mapping[str, Any]) -> NotebookNode:
    """The output from which ``{glue:text}`` takes the measured value of a claim."""
    return NotebookNode(
        output_type="display_data",
        data={f"{GLUE}text/plain": repr(claim["measured"])},
        metadata={"scrapbook": {"name": claim["id"], "mime_prefix": GLUE}},
    )


def write_files(output: NotebookNode, files: Path) -> None:
    """Write a figure's light and dark image, those of a slider's other frames, and its data."""
    told = output.metadata["figure"]
    name = told["name"]
    images = {name: {"light": output.data["image/png"], "dark": told["dark"]}}
    if "slider" in told:
        slider = dict(told["slider"])
        numbers = [k for k in range(len(slider["values"])) if k != slider["first"]]
        images |= {f"{name}.{k}": frame for k, frame in zip(numbers, slider.pop("others"), strict=True)}
        (files / f"{name}.slider.json").write_text(json.dumps(slider))
    for stem, themes in images.items():
        for theme, image in themes.items():
            (files / f"{stem}.{theme}.png").write_bytes(base64.b64decode(image))
    (files / f"{name}.{told['suffix']}").write_bytes(base64.b64decode(told["data"]))


def figure(told: Mapping[str, Any], strip: str, link: str) -> str:
    """A figure in MyST: the light image (its dark twin is added by the site), caption, and the strip as its legend."""
    options = {"name": f"fig-{told['name']}", "alt": told["alt"], "class": "only-light"}
    head = "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in options.items())
    data = f"{{download}}`data ({told['suffix'].upper()}) <{link}/{told['name']}.{told['suffix']}>`"
    image = f"{link}/{told['name']}.light.png"
    return f":::{{figure}} {image}\n---\n{head}\n---\n{told['caption']}\n\n{strip} · {data}\n:::"


def strip(record: Mapping[str, Any], told: Mapping[str, Any], lines: list[int], run: NotebookNode) -> str:
    """Where a figure comes from: code at the commit, profile and parameters, seed, seconds."""
    seed = told["figure"]["seed"]
    parts = [
        f"lines {lines[0]}–{lines[1]} at `{record['commit']}`",
        f"{record['profile']}: {in_words(record['parameters'])}",
        f"seed {seed}" if seed is not None else "no random draw",
        f"{run.metadata.papermill['duration']:.1f}\N{NO-BREAK SPACE}s",
    ]
    return " · ".join(parts)


def in_words(parameters: Mapping[str, Any]) -> str:
    """Parameters and their values in a line."""
    return ", ".join(f"`{name} = {value!r}`" for name, value in parameters.items())


def colophon(chapter: Chapter, record: Mapping[str, Any], uses: Iterable[str] = ()) -> str:
    """The foot of a chapter: how the page was made, what of the package it uses, and its downloads."""
    folder = f"{FILES}/{chapter.name}"
    facts = {
        "Profile": record["profile"],
        "Parameters": in_words(record["parameters"]),
        "Key": f"`{short(record['key'])}`",
        "Commit": f"`{record['commit']}`",
        "Executed": f"{record['date']} in {record['seconds']:.1f} s, Python {record['key']['Python']}",
        "Downloads": f"{{download}}`executed notebook <{folder}/{chapter.name}.ipynb>`, "
        f"{{download}}`text source <{folder}/{chapter.source.name}>`",
    }
    if links := [f"{{ref}}`{name.rpartition('.')[2]} <{api.anchor(name)}>`" for name in uses]:
        facts["Uses"] = ", ".join(links)
    rows = "\n".join(f"{name}\n: {value}\n" for name, value in facts.items())
    return f"::::{{div}} colophon\n{rows}\n::::"


def execution_page(records: Mapping[str, Mapping[str, Any]], runs: Mapping[str, PaperRun]) -> str:
    """The page that lists each chapter's run: profile, seconds, commit, versions, processor; and its paper run."""
    lines = [
        "# How this book was executed",
        "",
        "Each chapter ran from its first cell to its last in a kernel of its own, with one thread for linear algebra.",
        "A chapter runs again when its key changes: its code cells, its parameters, the modules of the package that it",
        "imports, the data files that it names, the records of its claims, the pinned packages or the Python version.",
        "Points of sweeps that were kept from an earlier run of the same code are read, and the seconds that they took",
        "are not counted. A `+` at a commit says that files had been changed since.",
        "",
        "{.runs}",
        "| chapter | executed | profile | seconds | at paper scale | commit | key |",
        "|---|---|---|---:|---:|---|---|",
    ]
    for name, record in records.items():
        paper = f"{runs[name].facts['seconds']:.1f}" if name in runs else "–"
        lines.append(
            f"| [](./{name}) | {record['date']} | {record['profile']} | {record['seconds']:.1f} | {paper} "
            f"| `{record['commit']}` | `{short(record['key'])}` |"
        )
    total = sum(record["seconds"] for record in records.values())
    lines += ["", f"Together {total:.1f} s of kernel time.", ""]
    lines += environments({name: f"Python {it['key']['Python']}, {environment(it)}" for name, it in records.items()})
    return "\n".join([*lines, *paper_scale(runs)]) + "\n"


def environment(record: Mapping[str, Any]) -> str:
    """The packages of a run with their versions, and its processor."""
    packages = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    return f"{packages}; {record['processor']}"


def environments(told: Mapping[str, str]) -> Iterator[str]:
    """A paragraph for each environment, with the chapters that ran in it; ``told`` has that of each chapter."""
    chapters: dict[str, list[str]] = {}
    for name, words in told.items():
        chapters.setdefault(words, []).append(f"[](./{name})")
    for words, those in chapters.items():
        yield from (f"{'All chapters' if len(chapters) == 1 else ', '.join(those)}: {words}.", "")


def paper_scale(runs: Mapping[str, PaperRun]) -> list[str]:
    """The part of the execution page on the recorded runs at the papers' own size."""
    lines = [
        "(paper-runs)=",
        "## At paper scale",
        "",
        "`slowmanifold build --profile paper` runs the chapters at the papers' own size, `slowmanifold record` keeps",
        "what they measured, with their parameters, in `book/results/paper.json`. The last column names the parts of a",
        "chapter that have changed since its run; to the ledger the values of such a run are of an *earlier state*.",
        "",
    ]
    if not runs:
        return [*lines, "No run is recorded yet."]
    lines += [
        "{.runs}",
        "| chapter | executed | seconds | commit | changed since |",
        "|---|---|---:|---|---|",
    ]
    for name, run in runs.items():
        facts, changed = run.facts, ", ".join(f"`{part}`" for part in run.changed) or "nothing"
        lines.append(f"| [](./{name}) | {facts['date']} | {facts['seconds']:.1f} | `{facts['commit']}` | {changed} |")
    total = sum(run.facts["seconds"] for run in runs.values())
    lines += ["", f"Together {total:.1f} s of kernel time.", ""]
    return [*lines, *environments({name: environment(run.facts) for name, run in runs.items()})]
