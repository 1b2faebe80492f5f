"""The project: what ``_toc.yml`` lists, the profiles, and what a chapter's run depends on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import grimp
import yaml
from joblib import Memory

from slowmanifold import claims
from slowmanifold.press.chapters import Chapter, Refused, fitting
from slowmanifold.press.keys import digest
from slowmanifold.sources import import_graph, imported_modules


@dataclass(frozen=True)
class Project:
    """The folder with ``_toc.yml``: the book, its package and what was made of them."""

    root: Path

    @classmethod
    def around(cls, folder: Path) -> Project:
        """The project that ``folder`` lies in."""
        for candidate in (folder, *folder.parents):
            if (candidate / "_toc.yml").is_file() and (candidate / "book").is_dir():
                return cls(candidate)
        raise Refused(f"no book here: neither {folder} nor a folder above it has a _toc.yml and a book/")

    @property
    def book(self) -> Path:
        """The folder of what is read."""
        return self.root / "book"

    @property
    def made(self) -> Path:
        """The folder of what is made; all of it can be made again."""
        return self.root / "_build"

    def executed(self, profile: str, name: str) -> Path:
        """The last good run of a chapter."""
        return self.made / "executed" / profile / f"{name}.ipynb"

    def failed(self, profile: str, name: str) -> Path:
        """The last failed run of a chapter, kept aside for a look."""
        return self.made / "failed" / profile / f"{name}.ipynb"

    def reference(self, name: str) -> Path:
        """The run that the gate compares with."""
        return self.root / "tests" / "reference" / f"{name}.ipynb"

    @cached_property
    def pages(self) -> list[Path]:
        """The files that ``_toc.yml`` lists, in its order, with their endings."""

        def files(node: Any) -> Iterator[str]:
            if isinstance(node, list):
                for item in node:
                    yield from files(item)
            elif isinstance(node, dict):
                yield from (node[word] for word in ("root", "file") if word in node)
                for value in node.values():
                    yield from files(value)

        toc = settings((self.root / "_toc.yml").read_text(), "_toc.yml")
        return [self.root / f"{name.removesuffix('.md')}.md" for name in files(toc)]

    @cached_property
    def chapters(self) -> dict[str, Chapter]:
        """The pages of the table of contents that are text notebooks, by name."""
        memory = Memory(self.made / "parsed", verbose=0)
        there = [page for page in self.pages if page.is_file() and has_kernel(page)]
        return {page.stem: Chapter(page.stem, page, memory) for page in there}

    def chapter(self, name: str) -> Chapter:
        """The chapter ``name``; ``Refused`` lists those there are."""
        if name not in self.chapters:
            raise Refused(f"no chapter {name!r}; there are {', '.join(self.chapters)}")
        return self.chapters[name]

    @cached_property
    def profiles(self) -> dict[str, dict[str, dict[str, Any]]]:
        """``profiles.yml``: for each chapter and profile the value of every parameter."""
        return settings((self.book / "profiles.yml").read_text(), "profiles.yml")

    def check_profile(self, profile: str) -> str:
        """``profile`` if the book has it; ``Refused`` lists those there are."""
        names = sorted({name for values in self.profiles.values() for name in values}, reverse=True)
        if profile not in names:
            raise Refused(f"no profile {profile!r}; there are {', '.join(names)}")
        return profile

    def parameters(self, chapter: Chapter, profile: str) -> dict[str, Any]:
        """The value of every parameter of ``chapter`` in ``profile``; ``Refused`` where the two do not fit."""
        values = self.profiles.get(chapter.name, {}).get(profile)
        if values is None:
            raise Refused(f"profiles.yml has no {profile!r} for chapter {chapter.name}")
        if wrong := sorted(set(values) ^ set(chapter.parameters)):
            where = "profiles.yml" if wrong[0] in values else "the chapter"
            raise Refused(f"chapter {chapter.name}, profile {profile}: only {where} has the parameter {wrong[0]!r}")
        return {name: fitting(chapter, name, values[name]) for name in chapter.parameters}

    @cached_property
    def records(self) -> dict[str, claims.Record]:
        """``claims.yml``; ``Refused`` names the record and the field at fault."""
        try:
            return claims.load(self.book / "claims.yml")
        except ValueError as error:
            raise Refused(str(error)) from None

    @cached_property
    def imports(self) -> grimp.ImportGraph:
        """Which module of the package imports which."""
        return import_graph()

    def modules(self, chapter: Chapter) -> list[str]:
        """The modules of the package that ``chapter`` imports, directly or not, with the packages around them."""
        return imported_modules(chapter.parsed.imports, self.imports)

    def module_file(self, module: str) -> Path:
        """The source file of a module of the package."""
        path = self.root / "src" / module.replace(".", "/")
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

    def key(self, chapter: Chapter, parameters: Mapping[str, Any]) -> dict[str, str]:
        """What a run of ``chapter`` depends on, part by part; with ``records_key``, equal keys mean equal results.

        Its code cells and parameters, the modules of the package that it imports transitively, the lock file, the
        Python version, and the files of the book that its code names.
        """
        # os.path's isfile takes any string, also a caption that is longer than file names may be.
        files = [name for name in sorted(chapter.parsed.literals) if "." in name and os.path.isfile(self.book / name)]
        return {
            "code cells": digest(json.dumps(chapter.parsed.code)),
            "parameters": digest(json.dumps(dict(parameters), sort_keys=True)),
            "requirements.txt": digest((self.root / "requirements.txt").read_bytes()),
            "Python": platform.python_version(),
            **{module: digest(self.module_file(module).read_bytes()) for module in self.modules(chapter)},
            **{f"book/{name}": digest((self.book / name).read_bytes()) for name in files},
        }


def settings(text: str, name: str) -> dict[str, Any]:
    """The YAML mapping in ``text``; ``Refused`` says what is wrong with the file ``name``."""
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise Refused(f"{name}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise Refused(f"{name}: has {type(found).__name__} at its top; names with values are needed")
    return found


def has_kernel(page: Path) -> bool:
    """Whether a page is a text notebook, by its header; ``Refused`` if it has code cells all the same."""
    text = page.read_text()
    header = text.split("\n---", 1)[0] if text.startswith("---\n") else ""
    found = "kernelspec" in settings(header, page.name)
    if not found and "\n```{code-cell}" in text:
        raise Refused(f"{page.name}: has code cells, but its header has no kernelspec")
    return found
