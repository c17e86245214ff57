"""`make check` keeps archaic words out."""

from __future__ import annotations

from tools.words import SWEPT, SWEPT_TWICE, faults, files


def test_an_archaic_word_is_found_with_its_line_and_a_plain_one() -> None:
    [(line, word, plain)] = faults("Fine.\nWhoever asks gets it.\n")
    assert (line, word) == (2, "Whoever")
    assert "anyone" in plain


def test_parts_of_words_and_names_are_left_alone() -> None:
    assert list(faults("toldo often shallow upon_close couponed beside")) == []


def test_folders_that_were_swept_twice_have_a_longer_list() -> None:
    assert list(faults("The pool is what tells.")) == []
    assert [word for _, word, _ in faults("The pool is what tells.", strict=True)] == ["tells"]
    assert all(files([folder]) for folder in SWEPT_TWICE)


def test_the_docs_are_read() -> None:
    names = {path.name for path in files(list(SWEPT))}
    assert {"README.md", "kubernetes.md", "terminal.py"} <= names
