"""The page about archives says what is true: its snippets run as they are printed, its tables name what there is."""

import re
from pathlib import Path

import pytest

from explain import MapArchive, MatchedPair
from explain.archive.job import POLICIES
from explain.batch.numbers import table_schema
from explain.data.base import Dataset
from explain.data.decode import REASONS
from explain.export.base import EXPORTS

PAGE = (Path(__file__).parents[2] / "docs/archive.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def rows(header: str) -> set[str]:
    """What stands in backticks in the first column of the table with this header."""
    table = PAGE.split(f"| {header} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return {name for line in table for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


def test_every_snippet_runs_as_it_is_printed(
    tiny_pair: MatchedPair, pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/textile").symlink_to(tiny_pair.path)
    Path("lots.csv").write_text("id,lot\nleft/00.png,A\nleft/01.png,B\n", encoding="utf-8")
    here = {'"textile"': repr(str(pictures.root)), "local/textile_0001.jpg": "left/00.png",
            "runs/textile/maps": "maps", '"n_steps": 16': '"n_steps": 3'}  # fmt: skip
    known: dict[str, object] = {}
    assert len(SNIPPETS) == 8
    for snippet in SNIPPETS:
        for printed, run in here.items():
            snippet = snippet.replace(printed, run)
        exec(compile(snippet, "docs/archive.md", "exec"), known)
    archive = known["archive"]
    assert isinstance(archive, MapArchive) and archive.finished
    assert known["mean"]["vpt"].shape == (4, 4)
    assert known["batch"]["map"].shape == (8, 64, 64)
    assert len(known["frame"]) == len(known["table"]) == 24
    assert len(list(Path("out").rglob("*"))) > 10


def test_the_table_of_columns_names_every_column(archive: MapArchive) -> None:
    named = {re.sub(r"\b[MXN]\b|(?<=_)[MXN](?=_|$)|^[MX](?=_)", ".+", name) for name in rows("column | meaning")}
    columns = table_schema(archive.job).names
    measured = {f"{one.model}_{one.method}_{name}" for one in archive.job.maps for name in one.numbers}
    assert [name for name in columns if name not in measured and not any(re.fullmatch(p, name) for p in named)] == []


def test_the_table_of_statuses_names_every_status() -> None:
    of_batch = {"ok", "bad_mask", "no_label", "hash_mismatch", "decoder_crashed", "nonfinite_output", "oom"}
    assert rows("status | meaning") == of_batch | set(REASONS)


def test_every_format_and_policy_is_named() -> None:
    assert rows("format | what | options") == set(EXPORTS)
    assert len(rows("`store_maps` | maps in pixels | at 224x224")) == len(POLICIES)
