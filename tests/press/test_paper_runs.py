"""Runs at paper scale as data: recorded whole or not at all, and compared with the chapter as it is."""

import json
import os

import pytest

from slowmanifold.press.build import states
from slowmanifold.press.chapters import Refused
from slowmanifold.press.execute import RECORD
from slowmanifold.press.paper_runs import file, load, record

MEASURE = "from slowmanifold.claims import claim\nclaim('{id}', size / 2)"


@pytest.fixture
def measured(book, instant):
    """Two chapters that measure a claim each, run at paper scale, where the size is four times that of quick runs."""
    for name in ("one", "two"):
        book.claim(f"{name}.size", above=0.0)
        book.chapter(name, MEASURE.format(id=f"{name}.size"))
        book.parameters[name]["paper"]["size"] = 12
    book.write()
    book.build(profile="paper")
    return book


def keep(book, *names):
    return record(book.project, names, states(book.project, "paper"))


def test_a_record_has_the_values_of_the_paper_run_and_how_they_came_about(measured):
    assert keep(measured) == ["one", "two"]
    told = measured.notebook("executed", "one", "paper").metadata[RECORD]
    run = load(measured.project)["one"]
    assert run.claims == {"one.size": 6.0}
    assert run.facts == {
        name: told[name] for name in ("date", "processor", "seconds", "commit", "versions", "parameters")
    }
    assert run.facts["parameters"] == {"size": 12}
    assert run.changed == []


def test_nothing_is_recorded_before_anything_is(measured):
    assert load(measured.project) == {}


def test_recording_one_chapter_keeps_the_others_to_the_letter(measured):
    keep(measured, "two")
    before = json.loads(file(measured.project).read_text())
    measured.edit("book/one.md", "size / 2", "size / 3")
    measured.build("one", profile="paper")
    keep(measured, "one")
    after = json.loads(file(measured.project).read_text())
    assert after["two"] == before["two"]
    assert after["one"]["claims"] == {"one.size": 4.0}


def test_stale_runs_are_refused_by_name_with_what_changed_and_nothing_is_recorded(measured):
    keep(measured)
    before = file(measured.project).read_text()
    measured.edit("book/one.md", "size / 2", "size / 3")
    measured.chapter("three")
    with pytest.raises(
        Refused, match=r"\(one: code cells; three: never executed\); run: .* --profile paper one three\Z"
    ):
        keep(measured)
    with pytest.raises(Refused, match="no chapter 'four'"):
        keep(measured, "four")
    assert file(measured.project).read_text() == before
    assert keep(measured, "two") == ["two"]


def test_a_write_that_fails_leaves_the_record_before_it(measured, monkeypatch):
    keep(measured, "two")
    before = file(measured.project).read_text()

    def full(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        keep(measured)
    assert file(measured.project).read_text() == before


@pytest.mark.parametrize(
    ("path", "old", "new", "changed"),
    [
        ("book/one.md", "size / 2", "size / 3", ["code cells"]),
        ("book/one.md", "Some prose.", "Other prose.", []),
        ("book/profiles.yml", "size: 12", "size: 13", ["parameters"]),
        ("requirements.txt", "numpy==", "numpy== ", ["requirements.txt"]),
        ("book/claims.yml", "what one.size says", "what else it says", []),
    ],
)
def test_what_has_changed_since_is_told_part_by_part(measured, path, old, new, changed):
    """Claims are judged anew and prose computes nothing: neither makes a record one of an earlier state."""
    measured.parameters["two"]["paper"]["size"] = 14
    measured.write()
    keep(measured, "one")
    measured.edit(path, old, new)
    assert load(measured.project)["one"].changed == changed


def test_another_python_is_told_beside_the_record_and_is_no_change(measured, monkeypatch):
    keep(measured)
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    assert load(measured.project)["one"].changed == []


def test_a_chapter_that_the_book_has_no_more_is_left_out(measured):
    keep(measured)
    del measured.parameters["two"]
    measured.write()
    assert list(load(measured.project)) == ["one"]


@pytest.mark.parametrize("text", ["{", "[]", '{"one": 1}', '{"one": {"date": "today"}}'])
def test_a_file_that_is_no_record_is_refused_by_its_name(measured, text):
    file(measured.project).parent.mkdir(exist_ok=True)
    file(measured.project).write_text(text)
    with pytest.raises(Refused, match=r"\Abook/results/paper\.json: "):
        load(measured.project)


def test_the_pages_of_the_next_build_show_what_was_recorded(measured):
    keep(measured)
    measured.build()
    shown = measured.root / "_build" / "html" / "book"
    assert '<td>6 <span class="claim-verdict claim-holds">holds</span></td>' in (shown / "ledger.md").read_text()
    assert "## At paper scale" in (shown / "execution.md").read_text()
