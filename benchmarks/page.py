"""What every benchmark prints: lines of progress, Markdown tables, and a page whose tables are replaced."""

import sys
import time
from pathlib import Path

MARKS = ("<!-- figures -->", "<!-- end of figures -->")
"""A page's tables stand between these."""


def table(heading: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table and an empty one."""
    return [f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows)] + [""]


def publish(text: str, into: Path | None) -> None:
    """Print the tables, and put them between the marks of a Markdown file."""
    print(text)
    if into:
        before, _, rest = into.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        into.write_text(f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


def say(text: str) -> None:
    """A line of progress, with the time."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)
