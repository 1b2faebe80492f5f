"""The ledger: every claim of the book in a row, with what the chapters measured."""

import re

import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from slowmanifold.press.chapters import Failed
from slowmanifold.press.ledger import Measurement, collect, ledger_page, measurements
from slowmanifold.press.paper_runs import PaperRun

PAPERS = {
    "graceful": {"title": "Degrading", "sections": {"1 First": ["Sec. 1", "Fig. 2"], "1.1 <Inner>": ["Sec. 1.1"]}},
    "local": {"title": "Dynamics", "sections": {"Methods": ["eq. 1"]}},
}


def run(*claims):
    """An executed notebook that measures claims: id, value, verdict."""
    cells = [new_markdown_cell("# One"), new_code_cell("1", outputs=[new_output("stream", text="1")])]
    for id, measured, verdict in claims:
        told = {"id": id, "measured": measured, "verdict": verdict}
        cells.append(new_code_cell(f"claim({id!r}, x)", outputs=[new_output("display_data", metadata={"claim": told})]))
    return new_notebook(cells=cells)


def page(tmp_path, records, measured, runs=None):
    usual = {"source": "graceful", "where": "Sec. 1", "says": "so it is", "status": "holds"}
    usual_bound = {"verdict_only": True}
    listed = [{**usual, **({} if "expect" in record else usual_bound), **record} for record in records]
    (tmp_path / "claims.yml").write_text(yaml.safe_dump(listed, sort_keys=False))
    (tmp_path / "papers.yml").write_text(yaml.safe_dump(PAPERS, sort_keys=False))
    return ledger_page(tmp_path, measured, runs or {})


def rows(text):
    return dict(re.findall(r'<tr id="ledger-([^"]*)"(.*?)</tr>', text))


def at_paper_scale(claims, changed=()):
    return {"one": PaperRun({"seconds": 1.0}, claims, list(changed))}


def test_measurements_come_in_the_order_of_the_chapter():
    notebook = run(("a.one", 1.5, "holds"), ("a.two", True, "deviates"))
    assert measurements(notebook, "one") == [
        ("a.one", Measurement("one", 1.5, "holds")),
        ("a.two", Measurement("one", True, "deviates")),
    ]


@pytest.mark.parametrize(
    ("notebooks", "where"),
    [
        ({"one": run(("a.b", 1.0, "holds"), ("a.b", 1.0, "holds"))}, "in one and in one"),
        (
            {"one": run(("a.b", 1.0, "holds")), "two": run(("a.c", 1.0, "holds"), ("a.b", 2.0, "holds"))},
            "one and in two",
        ),
    ],
)
def test_a_claim_that_is_measured_twice_fails_by_name(notebooks, where):
    with pytest.raises(Failed, match=rf"claim a\.b is measured twice: .*{where}"):
        collect(notebooks)


def test_every_claim_has_a_row_and_the_summary_counts_them(tmp_path):
    measured = collect({"one": run(("c", True, "holds"), ("a", False, "deviates"), ("d", True, "holds"))})
    text = page(tmp_path, [{"id": id} for id in "abcd"], measured)
    assert list(rows(text)) == ["a", "b", "c", "d"]
    assert "The verdicts on the 4 claims of the papers: *holds* 2, *deviates* 1, *open* 1. We add\n0." in text


def test_what_is_ours_is_marked_and_counted_apart(tmp_path):
    measured = collect({"one": run(("a", True, "holds"), ("b", True, "holds"))})
    text = page(tmp_path, [{"id": "a"}, {"id": "b", "ours": True}], measured)
    assert "The verdicts on the 1 claims of the papers: *holds* 1. We add\n1." in text
    theirs, ours = rows(text).values()
    assert 'data-said="by the paper"' in theirs
    assert "claim-ours" not in theirs
    assert 'data-said="by us"' in ours
    assert "claim-ours" in ours


def test_the_rows_come_in_the_order_of_the_papers_under_their_sections(tmp_path):
    places = {"a": "Fig. 2", "b": "nowhere", "c": "Sec. 1.1", "d": "Sec. 1, Sec. 1.1", "e": "eq. 1"}
    records = [
        {"id": id, "where": where, "source": "local" if id == "e" else "graceful"} for id, where in places.items()
    ]
    text = page(tmp_path, records[::-1], {})
    assert list(rows(text)) == ["d", "a", "c", "b", "e"]
    sections = re.findall(
        r'<tr class="ledger-section"><th scope="rowgroup" colspan="6"><span>(.*?)</span> (.*?)</th>', text
    )
    assert sections == [
        ("graceful", "1 First"),
        ("graceful", "1.1 &lt;Inner&gt;"),
        ("graceful", "Elsewhere in the paper"),
        ("local", "Methods"),
    ]
    assert text.count("<tbody>") == text.count("</tbody>") == len(sections)


def test_a_claim_that_nobody_measures_is_open_whatever_its_record_says(tmp_path):
    row = rows(page(tmp_path, [{"id": "a", "status": "holds"}], {}))["a"]
    assert 'data-status="open" data-scale="not recorded"' in row
    assert "<td>not yet <span" in row
    assert "href" not in row


def test_a_row_has_what_is_expected_and_measured_and_leads_to_its_cell(tmp_path):
    record = {"id": "a.b", "expect": 0.25, "within": 0.01, "status": "deviates", "note": "so", "source": "local"}
    record |= {"instead": {"above": 0.5}, "where": "eq. <1> & 2", "says": "is $<1$ & <b>"}
    row = rows(page(tmp_path, [record], {"a.b": Measurement("one", 0.75, "deviates")}))["a.b"]
    assert 'data-paper="local" data-chapter="one" data-said="by the paper" data-status="deviates"' in row
    assert '<a href="one.html#claim-a.b">a.b</a>' in row
    assert '0.25 ± 0.01<br><span class="claim-instead">we find &gt; 0.5</span>' in row
    assert '<td>0.75 <span class="claim-verdict claim-deviates">deviates</span></td>' in row
    assert "eq. &lt;1&gt; &amp; 2" in row
    assert "&amp; &lt;b&gt;" in row
    assert r"\(&lt;1\)" in row


HALF = {"id": "a", "expect": 0.5, "within": 0.1}
MISSED = {**HALF, "status": "deviates", "note": "so"}


@pytest.mark.parametrize(
    ("record", "here", "there", "verdict", "scale"),
    [
        (HALF, 0.5, 0.59, "holds", "agrees"),
        (HALF, 0.5, 0.61, "contradicted", "differs"),
        (MISSED, 0.7, 0.9, "deviates", "agrees"),
        (MISSED, 0.7, 0.5, "contradicted", "differs"),
        ({"id": "a"}, True, False, "contradicted", "differs"),
        ({"id": "a"}, True, True, "holds", "agrees"),
    ],
)
def test_the_value_at_paper_scale_is_judged_by_the_record_of_today(tmp_path, record, here, there, verdict, scale):
    """The verdict of a record that has changed since, by its tolerance say, is not the one of the day of the run."""
    measured = {"a": Measurement("one", here, record.get("status", "holds"))}
    text = page(tmp_path, [record], measured, at_paper_scale({"a": there}))
    row = rows(text)["a"]
    assert f'data-scale="{scale}"' in row
    cell = re.findall("<td>(.*?)</td>", row)[-1]
    assert cell.startswith(f'{str(there).lower()} <span class="claim-verdict claim-{verdict}">{verdict}</span>')
    assert ("differs from this build" in cell) is (scale == "differs")
    assert ('They differ in <a href="#ledger-a">a</a>.' in text) is (scale == "differs")


def test_a_claim_measured_at_one_scale_only_is_told_apart(tmp_path):
    records = [{"id": "both"}, {"id": "here"}, {"id": "there"}, {"id": "none"}]
    measured = {name: Measurement("one", True, "holds") for name in ("both", "here")}
    text = page(tmp_path, records, measured, at_paper_scale({"both": True, "there": True, "gone": True}))
    scales = {name: re.search('data-scale="(.*?)"', row)[1] for name, row in rows(text).items()}
    assert scales == {"both": "agrees", "here": "not recorded", "there": "differs", "none": "not recorded"}
    assert "Beside this build: *not recorded* 2, *agrees* 1, *differs* 1." in text


def test_a_run_of_a_chapter_that_has_changed_since_is_called_an_earlier_state(tmp_path):
    measured = {"a": Measurement("one", True, "holds")}
    fresh, old = (
        page(tmp_path, [{"id": "a"}], measured, at_paper_scale({"a": True}, parts)) for parts in ([], ["code"])
    )
    assert "earlier state" not in fresh
    assert '<a class="ledger-earlier" href="execution.html#paper-runs">earlier state</a>' in rows(old)["a"]
    assert "1 of these values were recorded at an *earlier state*" in old


def test_the_table_is_one_block_of_html(tmp_path):
    """A fence that stands on a line of its own in a claim would end the block."""
    text = page(tmp_path, [{"id": "a", "says": "one\n\ntwo\n```\nthree"}, {"id": "b"}], {})
    block = re.search(r"```{raw} html\n(.*)\n```\n\Z", text, re.DOTALL)[1]
    assert block.count("<tr id=") == 2
    assert not re.search(r"^```", block, re.MULTILINE)
