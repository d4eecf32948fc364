"""Interrupted and gone on with: nothing that was committed is lost, and nothing is computed twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from explain.data.base import Dataset

KILLED = Path(__file__).with_name("killed_batch.py")
NOTHING = {name: [] for name in ("left_over", "missing", "other_bytes", "other_content", "problems")}


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_run_loses_nothing_and_computes_nothing_twice(kills: int, pictures: Dataset, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, KILLED, pictures.root, tmp_path, "0", str(kills)], check=True, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(KILLED.parents[1])},
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["died"] >= kills and found["seen"] == 6 * found["jobs"]
    assert (found["lost"], found["recomputed"]) == (0, 0)
    assert {name: found[name] for name in NOTHING} == NOTHING
