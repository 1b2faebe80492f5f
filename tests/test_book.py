"""The sources of the book: what its chapters promise each other."""

from pathlib import Path

import pytest

from slowmanifold.press.chapters import Project

PROJECT = Project(Path(__file__).parents[1])


@pytest.mark.parametrize("name", PROJECT.chapters)
def test_the_parameters_that_a_chapter_shows_are_those_of_the_quick_profile(name):
    chapter = PROJECT.chapters[name]
    assert chapter.parameters == PROJECT.parameters(chapter, "quick")
