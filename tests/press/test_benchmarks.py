"""Benchmarks: one that fails does not hide the others, and the page says what was recorded."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slowmanifold.press.benchmarks import benchmarks_page, duration

ROOT = Path(__file__).parents[2]
HEAD = "from table import Ratio, show\n\n\ndef main():\n"
ROW = "    yield Ratio({what!r}, 'ours', {seconds}, 'theirs', 2.0, 'once', {aim})\n"


@pytest.fixture
def bench(tmp_path):
    """Runs benchmarks given as name: body of ``main``; returns the process and what it recorded, if anything."""

    def run(*names, **bodies):
        folder = tmp_path / "benchmarks"
        folder.mkdir()
        (tmp_path / "book" / "results").mkdir(parents=True)
        for name in ("__main__", "table"):
            shutil.copy(ROOT / "benchmarks" / f"{name}.py", folder)
        for name, body in bodies.items():
            (folder / f"{name}.py").write_text(HEAD + body)
        done = subprocess.run([sys.executable, folder, *names], cwd=tmp_path, capture_output=True, text=True)
        record = tmp_path / "book" / "results" / "benchmarks.json"
        return done, json.loads(record.read_text()) if record.exists() else None

    return run


def test_one_that_fails_dies_or_misses_is_named_and_the_others_are_kept(bench, tmp_path):
    done, record = bench(
        crash="    import os\n    os.abort()\n    yield\n",
        good=ROW.format(what="good", seconds=0.5, aim=4.0),
        slow=ROW.format(what="slow", seconds=1.0, aim=3.0),
        wrong=ROW.format(what="first", seconds=1.0, aim=None) + "    raise SystemExit('they disagree')\n",
    )
    assert done.returncode == 1
    assert [(row["benchmark"], row["what"]) for row in record["rows"]] == [
        ("good", "good"),
        ("slow", "slow"),
        ("wrong", "first"),
    ]
    assert record["failed"] == {
        "crash": "its process died",
        "slow": "missed its aim: slow",
        "wrong": "SystemExit: they disagree",
    }
    page = benchmarks_page(tmp_path / "book" / "results" / "benchmarks.json")
    assert page.count("\n- `") == 3
    assert "| slow | ours: 1 s | theirs: 2 s | 2.0 (aim: 3) | once |" in page
    assert record["processor"] in page


def test_some_of_them_alone_leave_the_record_as_it_is(bench):
    row = ROW.format(what="good", seconds=0.5, aim=None)
    done, record = bench("good", good=row, other=row)
    assert (done.returncode, record) == (0, None)
    assert "== other" not in done.stdout


def test_an_unknown_benchmark_is_named(bench):
    done, record = bench("god", good=ROW.format(what="good", seconds=0.5, aim=None))
    assert (done.returncode, done.stderr, record) == (2, "no benchmark 'god'; there are good\n", None)


def test_without_a_record_the_page_says_how_to_make_one(tmp_path):
    assert "`make bench`" in benchmarks_page(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(2.5, "2.5 s"), (125.0, "125 s"), (0.9996, "1 s"), (0.0123, "12.3 ms"), (5.41e-8, "54.1 ns"), (4e-6, "4 µs")],
)
def test_a_duration_has_three_digits_and_a_unit_that_suits(seconds, told):
    assert duration(seconds) == told.replace(" ", "\N{NO-BREAK SPACE}")
