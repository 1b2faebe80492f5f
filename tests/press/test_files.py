"""A file is the old one or the new one at any time."""

import pytest

from slowmanifold.press.files import write_text


def test_a_file_is_written_into_a_folder_that_is_not_there_yet(tmp_path):
    path = tmp_path / "new" / "file.json"
    write_text(path, "τ\n")
    assert path.read_text(encoding="utf-8") == "τ\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path):
    path = tmp_path / "file.json"
    write_text(path, "old\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800\n")
    assert path.read_text() == "old\n"
