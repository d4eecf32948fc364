"""Reviews: what a person said of an image's maps, kept beside the run for the report.

`reviews.jsonl` is only ever added to: the last line about an image counts, the earlier ones say how it came to be.
"""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from explain.data.names import find_obeyed
from explain.errors import InputError, IntegrityError, StorageError
from explain.files import parse_json
from explain.record import Record

FILE = "reviews.jsonl"

Verdict = Literal["", "right_place", "wrong_place", "unclear"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
"""Whether the models look at what matters in an image; "" is no verdict."""

Tag = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^,\n]+$")]


class Review(Record):
    """What one person said of one image.

    Args:
        sample: the image's id.
        sha256: of the image's file, when it is known: a review of another file is not one of this.
        models: model -> what tells its training from every other, so that a review of older weights shows.
        verdict: of `VERDICTS`.
        note: in the reviewer's words, up to 4,000 characters.
        tags: short words to find the image again, without commas.
        who: name or account; "" where nobody signed in.
        when: UTC, ISO 8601.
    """

    sample: str
    sha256: str | None
    models: dict[str, str]
    verdict: Verdict = ""
    note: Annotated[str, Field(max_length=4000)] = ""
    tags: tuple[Tag, ...] = ()
    who: Annotated[str, Field(max_length=200)] = ""
    when: str

    @field_validator("sample", "note", "who", "tags")
    @classmethod
    def _is_text(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        # line breaks are fine in a note, what a terminal would obey is not
        if find_obeyed([part.replace("\n", " ") for part in ([value] if isinstance(value, str) else value)]):
            raise ValueError("expected text without control characters")
        return value

    @property
    def empty(self) -> bool:
        """True when nothing is said: a review that was taken back."""
        return not (self.verdict or self.note or self.tags)


class Reviews:
    """The reviews of one run or archive; safe to use from all threads.

    Args:
        folder: of the run or the archive.

    Raises:
        IntegrityError: the file is there but a line of it is not a review.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / FILE
        self._lock = threading.Lock()
        self._read: tuple[int, dict[str, Review]] = (0, {})
        self.by_sample()

    def by_sample(self) -> dict[str, Review]:
        """The review that counts of every image that has one, by the image's id.

        Raises:
            IntegrityError: see the class.
        """
        with self._lock:
            size = self.path.stat().st_size if self.path.is_file() else 0
            if size != self._read[0]:
                self._read = size, self._load()
            return {name: review for name, review in self._read[1].items() if not review.empty}

    def get(self, sample: str) -> Review | None:
        """The review of one image."""
        return self.by_sample().get(sample)

    def tags(self) -> dict[str, int]:
        """Every tag and how many images have it, most used first."""
        counts: dict[str, int] = {}
        for review in self.by_sample().values():
            for tag in review.tags:
                counts[tag] = counts.get(tag, 0) + 1
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def add(self, review: Review) -> None:
        """Write a review; it is on the disk when this returns.

        Raises:
            StorageError: it cannot be written.
        """
        line = (review.model_dump_json() + "\n").encode()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            descriptor = os.open(self.path, flags, 0o644)
            with os.fdopen(descriptor, "ab", buffering=0) as stream:  # one write: lines of two people never mix
                stream.write(line)
                os.fsync(descriptor)
        except OSError as error:
            raise StorageError(f"the review of {review.sample!r} cannot be written to {self.path}: {error}") from None

    def _load(self) -> dict[str, Review]:
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""
        found = {}
        *lines, _ = text.split("\n")  # what follows the last line's end is being written, or torn by a power cut
        for number, line in enumerate(lines, start=1):
            try:
                review = Review.model_validate(parse_json(line, f"{self.path}, line {number}"))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise IntegrityError(f"{self.path}, line {number}: {where}: {first['msg']}; the viewer only ever adds "
                                     "to this file: mend the line, or remove it") from None  # fmt: skip
            found[review.sample] = review
        return found


def write_review(
    reviews: Reviews, sample: str, *, sha256: str | None, models: dict[str, str], verdict: str = "", note: str = "",
    tags: tuple[str, ...] = (), who: str = "",
) -> Review:  # fmt: skip
    """Say something of an image; what was said before stays in the file.

    Raises:
        InputError: a verdict that there is not, a note or tag that is too long or holds control characters.
        StorageError: it cannot be written.
    """
    try:
        review = Review.model_validate({
            "sample": sample, "sha256": sha256, "models": models, "verdict": verdict, "note": note.strip(),
            "tags": tags, "who": who, "when": datetime.now(UTC).isoformat(timespec="seconds"),
        })  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"this review cannot be kept: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    reviews.add(review)
    return review
