"""The gate: run the references again with nbval and compare, in a way that cannot pass by comparing nothing.

A reference is the quick run of a chapter without what differs between machines: no images, paths, times, random ids,
nor the digits of measured values, whose verdicts and tolerances stand in the text that is compared.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import click
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from nbval.plugin import find_comment_markers, find_metadata_tags

from slowmanifold.claims import REPORT
from slowmanifold.press.chapters import Failed
from slowmanifold.press.execute import code_cells, limits, read, write
from slowmanifold.press.project import Project

PROFILE = "quick"
LOOSENING = ("PYTEST_ADDOPTS", REPORT)  # what in a reader's shell would loosen the gate
COMPARED = ("text/plain", "text/html", "text/latex", "text/markdown")


def reference(run: NotebookNode) -> NotebookNode:
    """The part of a run that is the same on any machine: code cells with their text outputs."""
    cells = []
    for number, cell in enumerate((cell for cell in run.cells if cell.cell_type == "code"), 1):
        kept = new_code_cell(
            cell.source,
            id=f"cell-{number}",
            execution_count=cell.execution_count,
            outputs=[bare(output) for output in cell.outputs],
        )
        if tags := cell.metadata.get("tags"):
            kept.metadata["tags"] = tags
        cells.append(kept)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def bare(output: NotebookNode) -> NotebookNode:
    """An output without images, metadata and the digits of measured values."""
    kept = nbformat.from_dict(dict(output))
    if "data" in kept:
        kept.data = {kind: text for kind, text in kept.data.items() if kind in COMPARED}
        if "text/html" in kept.data:
            kept.data["text/html"] = re.sub(r"<output>[^<]*</output>", "<output></output>", kept.data["text/html"])
    if "metadata" in kept:
        kept.metadata = {name: {"id": told["id"]} for name, told in kept.metadata.items() if name == "claim"}
    return kept


def as_text(notebook: NotebookNode) -> list[str]:
    """Code and outputs as lines, to show what differs."""
    lines = []
    for cell in notebook.cells:
        lines += [f"  {line}" for line in cell.source.splitlines()]
        for output in cell.outputs:
            shown = output.get("text") or output.get("data", {}).get("text/plain", "")
            lines += [f"> {line}" for line in shown.splitlines()]
    return lines


def rewrite(path: Path, run: NotebookNode) -> list[str]:
    """Write the reference of a run to ``path`` and return the difference to the one before, line by line."""
    old, new = read(path), reference(run)
    write(new, path)
    before = as_text(old) if old else []
    return list(difflib.unified_diff(before, as_text(new), "reference", "this run", lineterm="", n=2))


def faults(project: Project) -> list[str]:
    """What would let the gate pass without comparing: each a line naming the chapter and the mend."""
    found = []
    for name, chapter in project.chapters.items():
        notebook, mend = read(project.reference(name)), f"run: slowmanifold reference {name}"
        if notebook is None:
            found.append(f"{name}: has no reference that can be read; {mend}")
            continue
        if [cell.source for cell in code_cells(notebook)] != chapter.parsed.code:
            found.append(f"{name}: its code differs from the reference's; {mend}")
        if injected(notebook) != project.parameters(chapter, PROFILE):
            found.append(f"{name}: its {PROFILE} parameters differ from the reference's; {mend}")
        if unexecuted := [n for n, cell in enumerate(notebook.cells, 1) if cell.execution_count is None]:
            found.append(f"{name}: cell {unexecuted[0]} of the reference was never executed; {mend}")
        if marked := [n for n, cell in enumerate(notebook.cells, 1) if any(marks(cell))]:
            found.append(f"{name}: cell {marked[0]} tells nbval to pass over it")
        if compared(notebook) == 0:
            found.append(f"{name}: the reference has no output to compare")
        if not any("claim" in output.get("metadata", {}) for cell in notebook.cells for output in cell.outputs):
            found.append(f"{name}: the reference checks no claim")
    if not project.chapters:
        found.append("_toc.yml: lists no chapter")
    known = {project.reference(name).name for name in project.chapters}
    orphans = sorted({path.name for path in project.reference("x").parent.glob("*.ipynb")} - known)
    return found + [f"{name}: is a reference without a chapter; remove it" for name in orphans]


def marks(cell: NotebookNode) -> Iterator[object]:
    """The comments and tags of a cell that change how nbval treats it."""
    yield from find_comment_markers(cell.source)
    yield from find_metadata_tags(cell.metadata)


def injected(notebook: NotebookNode) -> dict[str, object]:
    """The parameters that papermill put into a notebook."""
    values: dict[str, object] = {}
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            exec(cell.source, {}, values)
    return values


def compared(notebook: NotebookNode) -> int:
    """How many outputs of a reference nbval compares."""
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    return sum(bool(output.get("text") or output.get("data")) for output in outputs)


def check(project: Project, jobs: int, timeout: int) -> str:
    """Run the gate over all chapters; the text says what was compared. ``Failed`` says what failed."""
    if found := faults(project):
        raise Failed("the references do not cover the book:\n  " + "\n  ".join(found))
    references = [nbformat.read(project.reference(name), as_version=4) for name in project.chapters]
    with tempfile.TemporaryDirectory() as folder:
        report, rules = Path(folder, "report.xml"), Path(folder, "rules.cfg")
        # Beside a copy of the book, as nbval runs a notebook where it lies and chapters name files of the book.
        book = shutil.copytree(project.book, Path(folder, "book"))
        Path(folder, "_toc.yml").touch()  # by which sweeps know a book: they keep their points here, and find none
        paths = [shutil.copy(project.reference(name), book) for name in project.chapters]
        rules.write_text("[measured values]\nregex: <output>[^<]*</output>\nreplace: <output></output>\n")
        options = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", rules, "--nbval-cell-timeout", timeout]
        options += ["-n", min(jobs, len(paths)), "--dist", "loadscope", "--junit-xml", report]
        options += ["--noconftest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", folder, "-q"]
        # The plugins of the gate alone: what else is installed might reorder the cells.
        options += ["-p", "nbval.plugin", "-p", "xdist.plugin"]
        shell = {name: value for name, value in os.environ.items() if name not in LOOSENING}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *map(str, options), *map(str, paths)],
            cwd=folder,
            env={**shell, **limits(jobs, len(paths)), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        cells = ElementTree.parse(report).findall(".//testcase") if report.is_file() else []
    bad = [cell for cell in cells if any(cell.find(kind) is not None for kind in ("failure", "error", "skipped"))]
    expected = sum(len(notebook.cells) for notebook in references)
    if done.returncode != 0 or bad or len(cells) != expected:
        ran = f"{len(cells)} of {expected} cells ran, {len(bad)} of them failed or were passed over"
        raise Failed(f"the gate is closed: {ran}\n{click.unstyle(done.stdout + done.stderr)}")
    outputs = sum(compared(notebook) for notebook in references)
    return f"the gate is open: {len(paths)} chapters, {expected} cells run, {outputs} outputs compared"
