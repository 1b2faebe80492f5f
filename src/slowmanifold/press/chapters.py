"""A text chapter: its code cells, and its parameters."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joblib import Memory

if TYPE_CHECKING:
    from nbformat import NotebookNode

FORMAT = "md:myst"


class Refused(Exception):
    """What was asked for cannot be done; the message names what is wrong and lists what exists."""


class Failed(Exception):
    """What was asked for was tried and failed; the message says where and why."""


@dataclass(frozen=True)
class Parsed:
    """What the code cells of a text chapter say."""

    code: list[str]  # their sources, in order
    tagged: list[str]  # the sources of those tagged ``parameters``
    imports: set[str]  # dotted names; of ``from a import b`` both ``a`` and ``a.b``
    literals: set[str]  # strings, among them the names of data files
    error: str | None = None  # why they are not Python


def parse(text: str, jupytext_version: str) -> Parsed:
    """The code cells of the chapter ``text``; it rests on nothing but its arguments, so it can be remembered."""
    import jupytext

    cells = [cell for cell in jupytext.reads(text, fmt=FORMAT).cells if cell.cell_type == "code"]
    code = [cell.source for cell in cells]
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    try:
        nodes = list(ast.walk(ast.parse("\n".join(code))))
    except SyntaxError as error:
        return Parsed(code, tagged, set(), set(), f"{error.msg}: {error.text}")
    imports = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    literals = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return Parsed(code, tagged, imports, literals)


@dataclass(frozen=True)
class Chapter:
    """One MyST text notebook of the book; ``memory`` keeps what its text says from one build to the next."""

    name: str
    source: Path
    memory: Memory = field(default=Memory(None), compare=False)

    @cached_property
    def text(self) -> str:
        """The chapter as it stands on disk."""
        return self.source.read_text()

    def notebook(self) -> NotebookNode:
        """The chapter as a fresh notebook without outputs."""
        import jupytext

        return jupytext.reads(self.text, fmt=FORMAT)

    @cached_property
    def cells(self) -> Parsed:
        """What its code cells say, as far as they are Python."""
        return self.memory.cache(parse)(self.text, version("jupytext"))

    @property
    def parsed(self) -> Parsed:
        """What its code cells say; ``Refused`` names the chapter where they are not Python."""
        if self.cells.error:
            raise Refused(f"chapter {self.name}: a code cell is not Python: {self.cells.error}")
        return self.cells

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Names and defaults of the cell tagged ``parameters``: literals, assigned one a line."""
        tagged = self.cells.tagged
        if len(tagged) != 1:
            raise Refused(f"chapter {self.name}: has {len(tagged)} cells tagged parameters; it needs one")
        try:
            return {name: ast.literal_eval(node) for name, node in assignments(tagged[0])}
        except (ValueError, SyntaxError) as error:
            raise Refused(f"chapter {self.name}: the parameters must be literals, one a line: {error}") from None


def assignments(source: str) -> list[tuple[str, ast.expr]]:
    """Name and value node of each assignment ``name = literal`` in a parameters cell."""
    return [
        (node.targets[0].id, node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]


def with_values(source: str, values: Mapping[str, Any]) -> str:
    """The parameters cell ``source`` with other values in it; its comments stay."""
    text = source.encode()  # as the columns of a syntax tree count bytes
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    for name, node in reversed(assignments(source)):
        if name in values:
            head = text[: starts[node.lineno - 1] + node.col_offset]
            tail = text[starts[node.end_lineno - 1] + node.end_col_offset :]
            text = head + repr(values[name]).encode() + tail
    return text.decode()


def fitting(chapter: Chapter, name: str, value: Any) -> Any:
    """``value`` for the parameter ``name`` if it is of its default's type; ``Refused`` says what is wanted."""
    if name not in chapter.parameters:
        raise Refused(f"chapter {chapter.name} has no parameter {name!r}; there are {', '.join(chapter.parameters)}")
    default = chapter.parameters[name]
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        kinds = type(value).__name__, type(default).__name__
        raise Refused(f"parameter {name} of chapter {chapter.name}: {value!r} is {kinds[0]}; {kinds[1]} is wanted")
    return value
