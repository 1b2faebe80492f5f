"""The recorded training runs: what is asked for is known before the first run, and a record is written whole."""

import importlib.util
import json
from pathlib import Path

import pytest


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    """``book/results/record.py``, which writes into a folder of the test, and two short recordings."""
    file = Path(__file__).parents[1] / "book" / "results" / "record.py"
    spec = importlib.util.spec_from_file_location("record", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "commit", lambda folder: f"abcdef0123{'+' * len(list(folder.iterdir()))}")
    for name, seconds in (("reset", [1.2, 3.4]), ("parts", [5.0])):
        monkeypatch.setattr(module, name, lambda seconds=seconds: {"seconds": seconds})
    return module


def test_recordings_are_those_that_the_docstring_lists(recorder):
    listed = recorder.__doc__.partition("some:")[2].partition("MNIST")[0]
    assert set(" ".join(listed.split()).split(", ")) == set(recorder.ALL)
    assert all(callable(getattr(recorder, name)) for name in recorder.ALL)


def test_each_record_names_the_commit_of_the_tree_before_the_first_was_written(recorder, tmp_path):
    assert recorder.main(["reset", "parts"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.json", "reset.json"]
    records = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("reset", "parts")]
    assert [(record["commit"], record["seconds"]) for record in records] == [("abcdef0123", 5), ("abcdef0123", 5)]


def test_a_name_that_there_is_not_ends_it_before_any_run(recorder, tmp_path, capsys):
    assert recorder.main(["reset", "rest"]) == 2
    assert capsys.readouterr().err == f"no recording 'rest'; there are {', '.join(recorder.ALL)}, full_digits\n"
    assert not list(tmp_path.iterdir())
