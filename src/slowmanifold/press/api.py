"""The page of the package: every public name with its signature and docstring, and the chapters that use it.

It is made from the source text, so that the press imports nothing of the science.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from slowmanifold.press.chapters import Chapter

WIDTH = 77  # of a signature, so that it fits its box on a desk
USED = re.compile(r"\s*\bUsed in: ([^.]*)\.")  # what the page says with links
FLOORS = ("networks", "dynamics", "theory", "learning", "sweep", "claims", "figures")


@dataclass(frozen=True)
class Entry:
    """A public function, class, method or property of a module."""

    name: str
    signature: str
    text: str
    members: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Module:
    """A module with public names."""

    name: str
    text: str
    entries: tuple[Entry, ...]

    @property
    def names(self) -> list[str]:
        """The dotted names of what it offers."""
        return [f"{self.name}.{entry.name}" for entry in self.entries]


def modules(package: Path) -> list[Module]:
    """The modules of the package that chapters and readers use, floor by floor from the ground."""
    found = []
    for floor in FLOORS:
        path = package / floor
        for file in sorted(path.glob("[!_]*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            if file.is_file():
                name = ".".join(["slowmanifold", *file.relative_to(package).with_suffix("").parts])
                found.append(module(name, file.read_text()))
    return [module for module in found if module.entries]


def module(name: str, source: str) -> Module:
    """What the source text of a module offers."""
    tree = ast.parse(source)
    return Module(name, ast.get_docstring(tree) or "", tuple(entries(tree.body)))


def entries(body: Iterable[ast.stmt]) -> Iterator[Entry]:
    """The public functions and classes of a module or class with a docstring, in their order."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if text := ast.get_docstring(node):
            members = tuple(entries(node.body)) if isinstance(node, ast.ClassDef) else ()
            yield Entry(node.name, signature(node), text, members)


def signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """How a function is called, or a class with its fields, one argument a line where a line does not hold them."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        head, returned = f"class {node.name}" + (f"({bases})" if bases else ""), ""
        fields = [ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign)]
        return head + "".join(f"\n    {field}" for field in fields)
    if any(ast.unparse(mark).endswith("property") for mark in node.decorator_list):
        return node.name + (f" -> {ast.unparse(node.returns)}" if node.returns else "")
    arguments = [spaced(part) for part in separate(ast.unparse(node.args)) if part not in ("self", "cls")]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({', '.join(arguments)}){returned}"
    if len(line) <= WIDTH:
        return line
    return f"{node.name}(\n" + "".join(f"    {part},\n" for part in arguments) + f"){returned}"


def separate(arguments: str) -> list[str]:
    """Split a list of arguments at the commas that stand in no bracket and no string."""
    parts, depth, quote = [""], 0, ""
    for sign in arguments:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        depth += (sign in "([{") - (sign in ")]}") if not quote else 0
        if sign == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def spaced(argument: str) -> str:
    """An argument with a type and a default as one writes it, with spaces around the sign."""
    head, equals, default = argument.partition("=")
    return f"{head} = {default}" if equals and ":" in head else argument


def uses(chapters: Iterable[Chapter], names: Iterable[str]) -> dict[str, list[str]]:
    """For each of the dotted ``names`` the chapters that import it."""
    imported = {chapter.name: chapter.parsed.imports for chapter in chapters}
    return {name: [chapter for chapter, those in imported.items() if name in those] for name in names}


def anchor(name: str) -> str:
    """The label of a dotted name on the page."""
    return f"api-{name}".replace(".", "-").replace("_", "-").lower()


def prose(text: str) -> str:
    """A docstring in MyST: words as they are, what is indented as a block of code, roles as code."""
    text = re.sub(r":[a-z]+:`~?([^`]+)`", r"``\1``", text)
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.splitlines()
        if all(line.startswith("    ") for line in lines):
            paragraphs.append("\n".join(["```text", *(line[4:].replace("``", "") for line in lines), "```"]))
        else:
            # Outside code a dollar or an asterisk of a docstring is one, and nothing of MyST's.
            parts = re.split(r"(``.*?``(?!`))", paragraph, flags=re.DOTALL)
            parts[::2] = [re.sub(r"([\\$*_\[\]<>^{}])", r"\\\1", part) for part in parts[::2]]
            # The blanks are no part of the code: without them it could not end in a tick.
            parts[1::2] = [f"`` {part[2:-2]} ``" if "`" in part[2:-2] else part[1:-1] for part in parts[1::2]]
            paragraphs.append("".join(parts))
    return "\n\n".join(paragraphs)


def described(entry: Entry, name: str, level: int, users: Iterable[str], chapters: Collection[str]) -> Iterator[str]:
    """The lines of an entry: heading, signature, docstring, the chapters that use it, and its members.

    Those are the ones that import it; without any, those of the ``chapters`` that its docstring names.
    """
    title = name.rpartition(".")[2] if level == 3 else ".".join(name.split(".")[-2:])
    yield from (f"({anchor(name)})=", f"{'#' * level} {prose(title)}", "", "```python", entry.signature, "```", "")
    users = list(users)
    if not users and (told := USED.search(entry.text)):
        users = [user for user in re.split(r",\s+", told[1]) if user in chapters]
    yield from (prose(USED.sub("", entry.text) if users else entry.text), "")
    if users:
        yield from ("Used in: " + ", ".join(f"[](./{user})" for user in users) + ".", "")
    for member in entry.members:
        yield from described(member, f"{name}.{member.name}", level + 1, (), chapters)


def page(found: Iterable[Module], used: Mapping[str, list[str]]) -> str:
    """The page of the package in MyST."""
    lines = [
        "# The package",
        "",
        "What the chapters import, for use in work of one's own: networks as equations and parameters, the questions",
        "one asks of a dynamical system, theory as code, tasks and learning, and the book's own tools. All is float64,",
        "leading axes are batch axes, random draws take a generator, and bad input raises `ValueError`.",
        "",
    ]
    chapters = {chapter for users in used.values() for chapter in users}
    for part in found:
        title = prose(part.name.partition(".")[2])
        lines += [f"({anchor(part.name)})=", f"## {title}", "", prose(part.text), ""]
        for entry in part.entries:
            name = f"{part.name}.{entry.name}"
            lines += described(entry, name, 3, used.get(name, ()), chapters)
    return "\n".join(lines)
