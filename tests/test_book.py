"""The sources of the book: what its chapters promise each other."""

import ast
import re
from pathlib import Path

import pytest

from slowmanifold.press import api, outline
from slowmanifold.press.corrections import corrections
from slowmanifold.press.project import Project

PROJECT = Project(Path(__file__).parents[1])


@pytest.mark.parametrize("name", PROJECT.chapters)
def test_the_parameters_that_a_chapter_shows_are_those_of_the_quick_profile(name):
    chapter = PROJECT.chapters[name]
    assert chapter.parameters == PROJECT.parameters(chapter, "quick")


def test_every_claim_stands_under_a_section_of_its_paper():
    papers = outline.load(PROJECT.book / "papers.yml")
    lost = {
        name: record.where
        for name, record in PROJECT.records.items()
        if papers[record.source].heading(record.where) == outline.ELSEWHERE
    }
    assert not lost


def test_every_claim_that_was_corrected_is_among_the_corrections():
    """So the page of corrections, which is made of the chapters' boxes, misses none that was measured."""
    told = " ".join(one.text for chapter in PROJECT.chapters.values() for one in corrections(chapter))
    cited = set(re.findall(r"{claim}`(?:[^`<]* <)?([^`>]*)>?`", told))
    corrected = {name for name, record in PROJECT.records.items() if record.status == "corrected"}
    assert corrected - cited == set()


def test_every_term_of_the_glossary_is_linked_from_a_chapter():
    glossary = (PROJECT.book / "glossary.md").read_text()
    block = re.search(r"^```{glossary}\n(.*?)^```", glossary, re.MULTILINE | re.DOTALL)[1]
    groups = [re.findall(r"^(?! )(.+)$", group, re.MULTILINE) for group in block.split("\n\n")]
    prose = " ".join(" ".join(chapter.text.split()) for chapter in PROJECT.chapters.values())
    used = {word.lower() for word in re.findall(r"{term}`(?:[^`<]* <)?([^`>]*)>?`", prose)}
    assert [names[0] for names in groups if not {name.lower() for name in names} & used] == []


SCIENCE = [
    part
    for part in api.modules(PROJECT.root / "src" / "slowmanifold")
    if part.name.split(".")[1] in ("networks", "dynamics", "learning", "theory")
]
USED = api.uses(PROJECT.chapters.values(), [name for part in SCIENCE for name in part.names])


def test_the_docstring_of_what_a_chapter_uses_names_the_chapters():
    for part in SCIENCE:
        for entry in part.entries:
            if users := USED[f"{part.name}.{entry.name}"]:
                told = re.search(r"Used in: ([^.]*)\.", entry.text)
                assert told is not None, entry.name
                assert " ".join(told[1].split()).split(", ") == list(users), entry.name


def used_by_code(tree, module, name, at_home):
    """Whether a source file uses a name of a module: elsewhere by import, ``at_home`` outside its own definition."""
    for statement in tree.body:
        if at_home and getattr(statement, "name", None) == name:
            continue
        for node in ast.walk(statement):
            match node:
                case ast.Name(id=word) if at_home and word == name:
                    return True
                case ast.ImportFrom(module=source, names=names) if source == module:
                    if name in [alias.name for alias in names]:
                        return True
                case ast.Attribute(value=ast.Name(id=of), attr=word):
                    if (of, word) == (module.rpartition(".")[2], name):
                        return True
    return False


def test_what_no_chapter_uses_is_used_by_other_code():
    """A public function or class of the science that is only tested is none that the book needs."""
    places = [PROJECT.root / place for place in ("src/slowmanifold", "benchmarks", "book/results")]
    trees = {path: ast.parse(path.read_text()) for place in places for path in place.rglob("*.py")}
    dead = [
        f"{part.name}.{entry.name}"
        for part in SCIENCE
        for entry in part.entries
        if not USED[f"{part.name}.{entry.name}"]
        and not any(
            used_by_code(tree, part.name, entry.name, path == PROJECT.module_file(part.name))
            for path, tree in trees.items()
        )
    ]
    assert dead == []
