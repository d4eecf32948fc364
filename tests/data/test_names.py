import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explain.data.names import from_printable, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("textile_0001.jpg", "textile_0001.jpg"),
        ("織物 見本　1.jpg", "織物 見本　1.jpg"),
        ("100%.jpg", "100%.jpg"),
        ("a%20b.jpg", "a%2520b.jpg"),
        ("line\nbreak.jpg", "line%0Abreak.jpg"),
        ("evil\u202egpj.exe", "evil%E2%80%AEgpj.exe"),
        (os.fsdecode(b"latin\xe9.jpg"), "latin%E9.jpg"),
        ("<b>bold</b> & =cmd()", "<b>bold</b> & =cmd()"),
    ],
)
def test_only_what_cannot_be_printed_is_escaped(name, shown):
    assert printable(name) == shown
    assert from_printable(shown) == name


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw))
def test_any_file_name_survives_the_round_trip_and_is_utf8(raw):
    shown = printable(os.fsdecode(raw))
    assert os.fsencode(from_printable(shown)) == raw
    shown.encode("utf-8")  # raises where a lone surrogate is left


@given(st.text(alphabet="%aF0\n\u202e", max_size=8), st.text(alphabet="%aF0\n\u202e", max_size=8))
def test_different_names_stay_different(one, other):
    assert (printable(one) == printable(other)) == (one == other)


def test_composed_and_decomposed_letters_stay_different():
    assert printable("caf\u00e9.jpg") != printable("cafe\u0301.jpg")


def test_paths_are_shown_with_forward_slashes():
    assert printable(PurePosixPath("local/textile_0001.jpg")) == "local/textile_0001.jpg"
