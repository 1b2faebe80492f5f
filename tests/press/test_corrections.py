"""Corrections: what the chapters' boxes say becomes a list, place by place, and nothing of it is lost."""

import re

import pytest

from slowmanifold.press.chapters import Chapter, Failed
from slowmanifold.press.corrections import corrections, listing, write

BOX = """\
````{{admonition}} What we corrected
:class: corrected {paper}
:name: {label}

Some words before.

{points}
````
"""


@pytest.fixture
def chapter(tmp_path):
    """Write a chapter that has boxes with points, each under its paper."""

    def made(name, *boxes):
        texts = [
            BOX.format(paper=paper, label=f"{name}-{number}", points="\n".join(f"* {point}" for point in points))
            for number, (paper, points) in enumerate(boxes)
        ]
        path = tmp_path / f"{name}.md"
        path.write_text(f"# About {name}\n\n" + "\nProse.\n\n".join(texts) + "\n* **No.** A point outside.\n")
        return Chapter(name, path)

    return made


def places(text):
    return [line for line in text.splitlines() if line and not line.startswith(":")]


def test_the_places_of_a_paper_stand_in_its_order_whatever_the_order_of_the_chapters(chapter):
    wheres = ["Sec. 3.10", "Fig. 1", "Sec. 3.2, eq. 9", "Sec. 3", "Abstract", "Secs 3.2, 3.4", "A slide", "Fig. 1"]
    found = list(corrections(chapter("one", ("graceful", [f"**{where}.** Text." for where in wheres]))))
    ordered = ["Abstract", "Sec. 3", "Sec. 3.2, eq. 9", "Secs 3.2, 3.4", "Sec. 3.10", "Fig. 1", "A slide"]
    assert places(listing(found, "graceful")) == ordered


def test_every_point_is_in_the_list_of_its_paper_once_with_the_way_to_its_box(chapter, tmp_path):
    one = chapter("one", ("graceful", ["**Sec. 1.** First.", "**Sec. 2.** Second."]), ("local", ["**Eq. 3.** Third."]))
    two = chapter("two", ("graceful", ["**Sec. 1.** Fourth."]))
    write([one, two], tmp_path)
    lists = {paper: (tmp_path / f"corrections-{paper}.md").read_text() for paper in ("graceful", "signals", "local")}
    points = {paper: re.findall(r"^: (\w+)\.\xa0– {ref}`(.*?) <(.*)>`$", text, re.M) for paper, text in lists.items()}
    assert points == {
        "graceful": [
            ("First", "About one", "one-0"),
            ("Fourth", "About two", "two-0"),
            ("Second", "About one", "one-0"),
        ],
        "signals": [],
        "local": [("Third", "About one", "one-1")],
    }
    assert places(lists["graceful"]) == ["Sec. 1", "Sec. 2"], "a place stands once over all that is said of it"


def test_how_a_point_is_broken_into_lines_does_not_matter(chapter):
    text = "**Sec. 1, eq. 2.** Printed is $a$ *and* **b**:\n  right is {claim}`one.two`."
    [found] = corrections(chapter("one", ("signals", [text])))
    assert (found.where, found.text) == ("Sec. 1, eq. 2", "Printed is $a$ *and* **b**: right is {claim}`one.two`.")


@pytest.mark.parametrize("paper", ["", "gracefull"])
def test_a_box_without_its_paper_is_refused_by_name(chapter, paper):
    with pytest.raises(Failed, match=r"chapter one: a box .* papers are graceful, signals, local"):
        list(corrections(chapter("one", (paper, ["**Sec. 1.** Text."]))))


def test_a_point_without_its_place_is_refused_with_its_words(chapter):
    with pytest.raises(Failed, match=r"chapter one: .* not 'Somewhere in the paper"):
        list(corrections(chapter("one", ("local", ["Somewhere in the paper a sign is wrong."]))))
