"""The ledger: every claim of the book in a row, with what the chapters measured."""

import re

import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from slowmanifold.press.chapters import Failed
from slowmanifold.press.ledger import Measurement, collect, ledger_page, measurements


def run(*claims):
    """An executed notebook that measures claims: id, value, verdict."""
    cells = [new_markdown_cell("# One"), new_code_cell("1", outputs=[new_output("stream", text="1")])]
    for id, measured, verdict in claims:
        told = {"id": id, "measured": measured, "verdict": verdict}
        cells.append(new_code_cell(f"claim({id!r}, x)", outputs=[new_output("display_data", metadata={"claim": told})]))
    return new_notebook(cells=cells)


def page(tmp_path, records, measured):
    usual = {"source": "graceful", "where": "Sec. 1", "says": "so it is", "status": "holds", "verdict_only": True}
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump([{**usual, **record} for record in records], sort_keys=False))
    return ledger_page(path, measured)


def rows(text):
    return dict(re.findall(r'<tr id="ledger-([^"]*)"(.*?)</tr>', text))


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


def test_every_claim_has_a_row_in_the_order_of_its_file_and_the_summary_counts_them(tmp_path):
    measured = collect({"one": run(("c", True, "holds"), ("a", False, "deviates"), ("d", True, "holds"))})
    text = page(tmp_path, [{"id": id} for id in "abcd"], measured)
    assert list(rows(text)) == ["a", "b", "c", "d"]
    assert "Of 4 claims: 1 deviates, 2 holds, 1 open." in text


def test_a_claim_that_nobody_measures_is_open_whatever_its_record_says(tmp_path):
    row = rows(page(tmp_path, [{"id": "a", "status": "holds"}], {}))["a"]
    assert 'data-status="open"' in row
    assert "<td>not yet</td>" in row
    assert "href" not in row


def test_a_row_has_what_is_expected_and_measured_and_leads_to_its_cell(tmp_path):
    record = {"id": "a.b", "expect": 0.25, "within": 0.01, "status": "deviates", "note": "so", "source": "local"}
    record |= {"instead": {"above": 0.5}, "verdict_only": None, "where": "eq. <1> & 2", "says": "is $<1$ & <b>"}
    del record["verdict_only"]
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump([record]))
    row = rows(ledger_page(path, {"a.b": Measurement("one", 0.75, "deviates")}))["a.b"]
    assert 'data-paper="local" data-chapter="one" data-status="deviates"' in row
    assert '<a href="one.html#claim-a.b">a.b</a>' in row
    assert '0.25 ± 0.01<br><span class="claim-instead">we find &gt; 0.5</span>' in row
    assert "<td>0.75</td>" in row
    assert "eq. &lt;1&gt; &amp; 2" in row
    assert "&amp; &lt;b&gt;" in row
    assert r"\(&lt;1\)" in row


def test_the_table_is_one_block_of_html(tmp_path):
    """A fence that stands on a line of its own in a claim would end the block."""
    text = page(tmp_path, [{"id": "a", "says": "one\n\ntwo\n```\nthree"}, {"id": "b"}], {})
    block = re.search(r"```{raw} html\n(.*)\n```\n\Z", text, re.DOTALL)[1]
    assert block.count("<tr ") == 2
    assert not re.search(r"^```", block, re.MULTILINE)
