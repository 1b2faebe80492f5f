"""The sources of the book: what its chapters promise each other."""

from pathlib import Path

import pytest

from slowmanifold.press import outline
from slowmanifold.press.chapters import Project

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
