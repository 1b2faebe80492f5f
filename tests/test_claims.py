"""Claims: a record says what to expect, and no measured value can meet two of its statuses."""

import html
import json
import math
import re

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from slowmanifold.claims import (
    STATUSES,
    ClaimContradicted,
    Expectation,
    Record,
    as_text,
    claim,
    find,
    load,
    row,
    with_maths,
)

GOOD = {
    "id": "line.leak",
    "source": "graceful",
    "where": "Sec. 1",
    "says": "the leak is one",
    "expect": 1.0,
    "within": 0.5,
    "status": "holds",
}

numbers = st.floats(allow_nan=False, allow_infinity=False)


def record(**fields):
    """A record as a dictionary: the good one with other fields; ``None`` leaves a field out."""
    return {name: value for name, value in {**GOOD, **fields}.items() if value is not None}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes claims.yml and makes its folder the current one."""
    monkeypatch.chdir(tmp_path)

    def write(*records):
        path = tmp_path / "claims.yml"
        path.write_text(yaml.safe_dump(list(records), sort_keys=False))
        return path

    return write


@pytest.fixture
def shown(monkeypatch):
    """What is displayed: data and metadata of each output."""
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata: outputs.append((data, metadata)))
    return outputs


# Records


def test_records_come_in_their_order_with_all_their_fields(write):
    found = load(
        write(
            record(id="b.one", note="a\n  note\n"),
            record(id="a.two", expect=None, within=None, verdict_only=True, status="open"),
            record(id="a.three", status="deviates", note="so", instead={"above": 2, "below": 3}),
            record(id="a.four", expect=-4, within=None, relative=0.25, status="corrected", note="so"),
        )
    )
    assert list(found) == ["b.one", "a.two", "a.three", "a.four"]
    assert found["b.one"] == Record(
        "b.one", "graceful", "Sec. 1", "the leak is one", "holds", Expectation(expect=1.0, within=0.5), "a note"
    )
    assert found["a.two"].expectation == Expectation(statement=True)
    assert found["a.three"].instead == Expectation(above=2, below=3)
    assert found["a.four"].expectation == Expectation(expect=-4.0, within=1.0), "relative to the size of what we expect"


def test_a_file_without_records_has_none(tmp_path):
    path = tmp_path / "claims.yml"
    path.write_text("# none yet\n")
    assert load(path) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"id": "Line Leak"}, "an id is"),
        ({"id": 1.5}, "an id is"),
        ({"source": "other"}, "source is 'other'; allowed are graceful, signals, local"),
        ({"status": "true"}, "status is 'true'; allowed are holds"),
        ({"where": None}, "where is missing"),
        ({"says": ""}, "says is missing"),
        ({"ours": False}, "ours is False; true is allowed"),
        ({"ours": True, "status": "open"}, "what is ours holds, this one open"),
        ({"status": "corrected"}, "corrected needs a note"),
        ({"status": "deviates"}, "deviates needs a note"),
        ({"instead": {"above": 1}}, "instead belongs to claims that deviate, this one holds"),
        ({"status": "deviates", "note": "so", "instead": 2}, "instead is 2"),
        ({"status": "deviates", "note": "so", "instead": {"expects": 2, "within": 1}}, "instead is"),
        ({"status": "deviates", "note": "so", "instead": {"expect": 2}}, "instead: has .'expect'.; needs"),
        ({"expect": None}, "has .'within'.; needs expect"),
        ({"within": None}, "has .'expect'.; needs expect with within"),
        ({"expect": None, "within": None}, "has ..; needs"),
        ({"expect": None, "within": None, "verdict_only": False}, "has .'verdict_only'.; needs"),
        ({"verdict_only": True}, "needs expect"),
        ({"relative": 0.1}, "needs expect"),
        ({"above": 0}, "needs expect"),
        ({"expect": "1.0"}, "expect is '1.0'; a finite number"),
        ({"expect": True}, "expect is True; a finite number"),
        ({"within": "1e-6"}, "within is '1e-6'; a finite number"),
        ({"within": math.inf}, "within is inf; a finite number"),
        ({"expect": math.nan}, "expect is nan; a finite number"),
        ({"within": -0.1}, "the tolerance is -0.1"),
        ({"within": None, "relative": -0.1}, "the tolerance is -0.1"),
        ({"expect": None, "within": None, "above": 2, "below": 1}, "nothing is above 2 and below 1"),
        ({"expect": None, "within": None, "above": 1, "below": 1}, "nothing is above 1 and below 1"),
    ],
)
def test_a_bad_record_is_refused_by_its_name_and_field(write, fields, message):
    name = fields.get("id", "line.leak")
    with pytest.raises(ValueError, match=message) as refusal:
        load(write(record(id="a.good"), record(**fields)))
    assert str(refusal.value).startswith(f"claims.yml: {name}: ")
    assert "\n" not in str(refusal.value)


def test_an_id_that_stands_twice_is_refused(write):
    with pytest.raises(ValueError, match=r"line\.leak: the id stands twice"):
        load(write(record(), record(says="something else")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a: [1\n- b", "is not YAML: .* line 3"),
        ("a: 1\n", "has dict at its top"),
        ("- one\n- two\n", "record 1 is 'one'"),
        ("- source: local\n", "record 1: id is missing"),
    ],
)
def test_a_file_that_is_no_list_of_records_is_refused(tmp_path, text, message):
    path = tmp_path / "claims.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"\Aclaims\.yml: {message}") as refusal:
        load(path)
    assert "\n" not in str(refusal.value)


# Expectations and verdicts


@given(expect=st.integers(-1000, 1000), within=st.integers(0, 10), eighths=st.integers(-16, 16))
def test_a_value_meets_what_is_expected_within_the_tolerance_and_only_there(expect, within, eighths):
    """Eighths and powers of two make the sums exact, so that the edge itself is tested."""
    tolerance = 2.0**-within
    value = expect + tolerance * eighths / 8
    assert Expectation(expect=float(expect), within=tolerance).met_by(value) is (abs(eighths) <= 8)


@given(bound=numbers, value=numbers)
def test_bounds_are_met_on_their_own_side_alone(bound, value):
    assert Expectation(above=bound).met_by(value) is (value > bound)
    assert Expectation(below=bound).met_by(value) is (value < bound)
    assert Expectation(above=bound, below=bound + 1).met_by(value) is (bound < value < bound + 1)


def test_a_statement_is_met_by_true_alone():
    assert [Expectation(statement=True).met_by(value) for value in (True, False)] == [True, False]


expectations = st.one_of(
    st.builds(Expectation, expect=numbers, within=numbers.map(abs)),
    st.builds(Expectation, above=numbers),
    st.builds(Expectation, below=numbers),
)


def judged(status, expectation, instead=None):
    return Record("a.b", "local", "eq. 1", "so it is", status, expectation, "note", instead)


@given(expectation=expectations, value=numbers)
def test_a_value_that_agrees_with_the_paper_does_not_deviate_and_the_other_way_round(expectation, value):
    holds, corrected, deviates, unmeasured = (
        judged(status, expectation).agrees(value) for status in ("holds", "corrected", "deviates", "open")
    )
    assert holds is corrected is expectation.met_by(value) is (not deviates)
    assert unmeasured is False


@given(expectation=expectations, instead=expectations, value=numbers)
def test_a_value_deviates_where_it_misses_the_paper_and_meets_what_we_find(expectation, instead, value):
    agrees = judged("deviates", expectation, instead).agrees(value)
    assert agrees is (instead.met_by(value) and not expectation.met_by(value))


@given(
    expectation=expectations, value=st.sampled_from([math.nan, math.inf, -math.inf]), status=st.sampled_from(STATUSES)
)
def test_what_is_no_finite_number_never_agrees(expectation, value, status):
    assert judged(status, expectation).agrees(value) is False
    assert judged("deviates", expectation, instead=Expectation(above=0.0)).agrees(value) is False
    if math.isnan(value):
        assert expectation.met_by(value) is False


def test_a_statement_deviates_where_it_is_false():
    statement = Expectation(statement=True)
    assert [judged("holds", statement).agrees(value) for value in (True, False)] == [True, False]
    assert [judged("deviates", statement).agrees(value) for value in (True, False)] == [False, True]


# Handing over


def test_a_claim_that_agrees_shows_its_row_and_returns_nothing(write, shown):
    write(record())
    assert claim("line.leak", 1.25) is None
    [(data, metadata)] = shown
    assert data["text/plain"] == "line.leak: holds: 1 ± 0.5"
    assert 'id="claim-line.leak"' in data["text/html"]
    assert "<output>1.25</output>" in data["text/html"]
    assert metadata == {"claim": {"id": "line.leak", "measured": 1.25, "verdict": "holds"}}


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({}, 0.9182736451),
        ({"expect": None, "within": None, "above": 0.5}, 0.9182736451),
        ({"expect": None, "within": None, "below": 2, "above": 0.5}, 0.9182736451),
        ({"status": "deviates", "note": "so", "expect": 2, "instead": {"expect": 1, "relative": 0.1}}, 0.9182736451),
        ({"expect": None, "within": None, "verdict_only": True}, True),
    ],
)
def test_the_text_that_machines_compare_has_no_digit_of_the_measured_value(write, shown, fields, value):
    write(record(**fields))
    claim("line.leak", value)
    if value is not True:
        claim("line.leak", 1.0001)
    assert len({data["text/plain"] for data, _ in shown}) == 1
    bare = {re.sub("<output>.*?</output>", "", data["text/html"]) for data, _ in shown}
    assert len(bare) == 1
    assert shown[0][1]["claim"]["measured"] == value, "while the ledger gets all of them"
    for text in (shown[0][0]["text/plain"], *bare):
        assert "91827" not in text


@pytest.mark.parametrize(
    "measured",
    [1, 1.0, np.float64(1), np.float32(1), np.int64(1), np.array(1.0), np.ones((1, 1)), torch.tensor(1.0)],
    ids=repr,
)
def test_one_number_may_be_of_any_kind_and_is_kept_as_plain_python(write, shown, measured):
    write(record())
    claim("line.leak", measured)
    kept = shown[0][1]["claim"]["measured"]
    assert kept == 1
    assert type(kept) in (int, float)


@pytest.mark.parametrize("measured", [True, np.True_, torch.tensor(True)], ids=repr)
def test_a_statement_may_be_of_any_kind(write, shown, measured):
    write(record(expect=None, within=None, verdict_only=True))
    claim("line.leak", measured)
    assert shown[0][1]["claim"]["measured"] is True


@pytest.mark.parametrize(
    "measured",
    [True, np.True_, None, "1.0", 1 + 0j, [1.0], np.ones(2), torch.ones(2), np.array([]), np.array("1")],
    ids=repr,
)
def test_what_is_not_one_number_is_refused_by_name(write, shown, measured):
    write(record())
    with pytest.raises(ValueError, match=r"claim 'line\.leak': measured is .*; its record needs one number"):
        claim("line.leak", measured)
    assert not shown


@pytest.mark.parametrize("measured", [1, 0.0, np.ones(2, dtype=bool), None], ids=repr)
def test_what_is_not_true_or_false_is_no_statement(write, shown, measured):
    write(record(expect=None, within=None, verdict_only=True))
    with pytest.raises(ValueError, match=r"claim 'line\.leak': .* needs True or False"):
        claim("line.leak", measured)


def test_a_claim_without_a_record_is_refused_by_name(write, shown):
    write(record())
    with pytest.raises(ValueError, match=r"claim 'line\.lake' has no record"):
        claim("line.lake", 1.0)
    assert not shown


@pytest.mark.parametrize(
    ("fields", "measured"),
    [
        ({}, 1.75),
        ({"status": "corrected", "note": "so"}, 0.25),
        ({"status": "deviates", "note": "so"}, 1.25),
        ({"status": "deviates", "note": "so", "instead": {"below": 0}}, 2.0),
        ({"status": "open"}, 1.0),
        ({}, math.nan),
        ({"expect": None, "within": None, "above": 0}, math.inf),
        ({"expect": None, "within": None, "verdict_only": True}, False),
    ],
)
def test_a_contradicted_claim_is_shown_and_raised(write, shown, monkeypatch, fields, measured):
    monkeypatch.delenv("SLOWMANIFOLD_CLAIMS", raising=False)
    expected = record(**fields)
    write(expected)
    with pytest.raises(ClaimContradicted) as contradiction:
        claim("line.leak", measured)
    for word in ("line.leak", repr(expected["status"]), as_text(measured)):
        assert word in str(contradiction.value)
    [(data, metadata)] = shown
    assert data["text/plain"].startswith("line.leak: contradicted: ")
    assert "claim-contradicted" in data["text/html"]
    assert metadata["claim"]["verdict"] == "contradicted"
    json.dumps(metadata, allow_nan=False)
    # A reader's own parameters: the same row, and nothing raised.
    monkeypatch.setenv("SLOWMANIFOLD_CLAIMS", "report")
    claim("line.leak", measured)
    assert shown[1] == shown[0]


def test_the_records_are_found_from_inside_the_book_and_from_its_project(tmp_path, monkeypatch):
    path = tmp_path / "book" / "claims.yml"
    deep = tmp_path / "tests" / "reference"
    for folder in (path.parent, deep):
        folder.mkdir(parents=True)
    path.write_text("[]")
    for folder in (tmp_path, path.parent, deep):
        monkeypatch.chdir(folder)
        assert find() == path
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no claims\.yml in .*: run this inside the book"):
        find()


# What readers see


words = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$"), max_size=20)


@given(before=words, formula=words.filter(bool), after=words)
def test_text_is_escaped_and_formulae_are_wrapped(before, formula, after):
    plain, opening, typeset, closing, rest = re.fullmatch(
        r'(.*)(<span class="math notranslate nohighlight">)\\\((.*)\\\)(</span>)(.*)',
        with_maths(f"{before}${formula}${after}"),
        re.DOTALL,
    ).groups()
    assert (opening, closing) == ('<span class="math notranslate nohighlight">', "</span>")
    for text, source in ((plain, before), (typeset, formula), (rest, after)):
        assert html.unescape(text) == source
        assert not set(text) & set("<>\"'")


def test_the_row_escapes_what_the_record_says():
    expectation = Expectation(below=1.0, above=-1.0)
    shown = row(Record("a.b", "local", "eq. <1>", "<b>", "deviates", expectation, "<i>", expectation), 0.5, "deviates")
    tags = set(re.findall(r"<(\w+)", shown))
    assert tags == {"div", "span", "dl", "dt", "dd", "output", "p"}
    assert "&gt; -1 and &lt; 1" in shown


@pytest.mark.parametrize(
    ("expectation", "text"),
    [
        (Expectation(expect=0.25, within=0.01), "0.25 ± 0.01"),
        (Expectation(expect=-2.0, within=0.0), "-2 exactly"),
        (Expectation(expect=0.1478220707, within=1e-8), "0.147822071 ± 1e-08"),
        (Expectation(expect=0.0, within=1.25), "0 ± 1.25"),
        (Expectation(above=1e-9), "> 1e-09"),
        (Expectation(above=1.0, below=2.0), "> 1 and < 2"),
        (Expectation(statement=True), "true"),
    ],
)
def test_an_expectation_in_words(expectation, text):
    assert str(expectation) == text


def test_a_measured_value_has_as_many_digits_as_its_tolerance_asks_for():
    assert as_text(0.14782207074, 1e-8) == "0.147822071"
    assert as_text(0.14782207074, 0.1) == as_text(0.14782207074) == "0.147822"
    assert [as_text(value, 1e-9) for value in (float("nan"), 0.0, True)] == ["nan", "0", "true"]
