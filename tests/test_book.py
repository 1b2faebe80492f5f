"""The sources of the book: what its chapters promise each other."""

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


def test_the_docstring_of_what_a_chapter_uses_names_the_chapters():
    package = api.modules(PROJECT.root / "src" / "slowmanifold")
    science = [part for part in package if part.name.split(".")[1] in ("networks", "dynamics", "learning", "theory")]
    used = api.uses(PROJECT.chapters.values(), [name for part in science for name in part.names])
    for part in science:
        for entry in part.entries:
            if users := used[f"{part.name}.{entry.name}"]:
                told = re.search(r"Used in: ([^.]*)\.", entry.text)
                assert told is not None, entry.name
                assert " ".join(told[1].split()).split(", ") == list(users), entry.name
