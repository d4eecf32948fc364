"""Reviews are only ever added; the last one about an image counts."""

import json
import threading
from pathlib import Path

import pytest

from explain.errors import InputError, IntegrityError, StorageError
from explain.reviews import FILE, Reviews, write_review


def say(reviews: Reviews, sample: str = "a.png", **said) -> None:
    write_review(reviews, sample, sha256="ab", models={"vpt": "x"}, **said)


def test_the_last_review_counts_and_the_file_keeps_all(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    assert reviews.by_sample() == {} and reviews.get("a.png") is None
    say(reviews, verdict="wrong_place", note=" the edge ", tags=("edge",), who="mei")
    say(reviews, verdict="right_place", note="二行\nある")
    say(reviews, "b.png", tags=("edge", "ask"))
    found = reviews.get("a.png")
    assert (found.verdict, found.note, found.tags, found.who) == ("right_place", "二行\nある", (), "")
    assert len((tmp_path / FILE).read_text().splitlines()) == 3
    assert reviews.tags() == {"ask": 1, "edge": 1}
    assert Reviews(tmp_path).by_sample() == reviews.by_sample()


def test_a_review_without_anything_takes_the_former_back(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    say(reviews, note="x")
    say(reviews)
    assert reviews.by_sample() == {} and len((tmp_path / FILE).read_text().splitlines()) == 2


def test_what_another_process_adds_is_seen(tmp_path: Path) -> None:
    first, second = Reviews(tmp_path), Reviews(tmp_path)
    say(first, note="one")
    assert second.get("a.png").note == "one"


def test_reviews_of_many_threads_are_whole(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    threads = [
        threading.Thread(target=lambda part=part: [say(reviews, f"{part}-{at}.png", note="n" * 99) for at in range(20)])
        for part in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Reviews(tmp_path).by_sample()) == 80


def test_a_torn_last_line_is_left_out_and_another_bad_line_is_named(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    say(reviews, note="kept")
    with open(tmp_path / FILE, "a") as stream:
        stream.write('{"sample": "b.p')
    assert list(Reviews(tmp_path).by_sample()) == ["a.png"]
    (tmp_path / FILE).write_text('{"sample": "b.png"}\n')
    with pytest.raises(IntegrityError, match=r"reviews.jsonl, line 1: sha256: Field required"):
        Reviews(tmp_path)
    (tmp_path / FILE).write_text("no json\n")
    with pytest.raises(IntegrityError, match="line 1"):
        Reviews(tmp_path)


@pytest.mark.parametrize("said", [
    {"verdict": "splendid"}, {"note": "x" * 4001}, {"note": "\x1b[2J"}, {"tags": ("a,b",)}, {"tags": ("x" * 41,)},
    {"tags": ("\u202ea",)}, {"who": "\x07"},
])  # fmt: skip
def test_what_cannot_be_kept_is_refused_and_nothing_is_written(tmp_path: Path, said: dict) -> None:
    reviews = Reviews(tmp_path)
    with pytest.raises(InputError, match="this review cannot be kept"):
        say(reviews, **said)
    assert not (tmp_path / FILE).exists()


def test_line_separators_do_not_break_lines(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    say(reviews, note="a\u2028b")
    assert Reviews(tmp_path).get("a.png") is not None
    assert json.loads((tmp_path / FILE).read_text().split("\n")[0])


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path / "gone")
    with pytest.raises(StorageError, match="cannot be written"):
        say(reviews, note="x")
