"""The papers' outlines: a claim stands under the section that its place names first."""

from pathlib import Path

import pytest

from slowmanifold.claims import load as load_claims
from slowmanifold.press.chapters import Refused
from slowmanifold.press.outline import ELSEWHERE, Paper, grouped, load

BOOK = Path(__file__).parents[2] / "book"
PAPER = Paper("A paper", {"Second": ["Sec. 2", "eq. 1"], "First": ["Sec. 1", "p. 1"], "Inner": ["Sec. 1.1", "Fig. 1"]})


@pytest.mark.parametrize(
    ("where", "heading"),
    [
        ("Sec. 1", "First"),
        ("Sec. 1, Sec. 2", "First"),
        ("Sec. 2, Sec. 1", "Second"),
        ("Sec. 1.1", "Inner"),
        ("Sec. 1.", "First"),
        ("Sec. 1.12", ELSEWHERE),
        ("Sec. 12", ELSEWHERE),
        ("app. 1", ELSEWHERE),
        ("before eq. 1, p. 1", "Second"),
        ("Fig. 1B, left", "Inner"),
        ("the whole", ELSEWHERE),
    ],
)
def test_the_first_place_counts_and_no_name_is_taken_for_another(where, heading):
    assert PAPER.heading(where) == heading


def test_of_two_names_at_one_place_the_longer_counts_whatever_their_order():
    for sections in (
        {"short": ["Results"], "long": ["Results, last"]},
        {"long": ["Results, last"], "short": ["Results"]},
    ):
        assert Paper("", sections).heading("Results, last slide") == "long"


def test_grouping_loses_no_record_and_keeps_the_order_of_the_papers():
    papers, records = load(BOOK / "papers.yml"), load_claims(BOOK / "claims.yml")
    groups = grouped(records.values(), papers)
    assert sorted(record.id for found in groups.values() for record in found) == sorted(records)
    order = [(source, heading) for source, paper in papers.items() for heading in (*paper.sections, ELSEWHERE)]
    assert list(groups) == [place for place in order if place in groups]


@pytest.mark.parametrize(
    "text", ["a: 1\n", "a: {title: x}\n", "a: {title: x, sections: [1]}\n", "a: {title: x, sections: {b: 3}}\n"]
)
def test_a_file_of_another_form_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "papers.yml").write_text(text)
    with pytest.raises(Refused, match=r"\Apapers\.yml: a needs a title and its sections"):
        load(tmp_path / "papers.yml")
