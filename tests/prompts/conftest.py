"""Runs to register, and a store that holds some of them."""

import shutil
from pathlib import Path

import pytest
from prompt_runs import make_run

from explain.prompts.store import PromptStore
from explain.training.pair import MatchedPair
from explain.training.run import Run

OWNED = {"owner": "quality", "purpose": "squares, camera 1", "who": "aiko"}


@pytest.fixture(scope="session")
def runs(tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs by what is special about them; "deep" is really trained."""
    folder, vpt = tmp_path_factory.mktemp("prompt_runs"), tiny_pair.vpt
    return {
        "deep": vpt,
        "deep_b": make_run(vpt, folder / "deep_b", seed=1, wrong=2, num_tokens=3),
        "shallow": make_run(vpt, folder / "shallow", seed=2, num_tokens=3, deep=False),
        "shallow_b": make_run(vpt, folder / "shallow_b", seed=3, num_tokens=3, deep=False),
        "longer": make_run(vpt, folder / "longer", seed=4, num_tokens=5),
        "linear": make_run(vpt, folder / "linear", "linear", seed=5),
        "bitfit": make_run(vpt, folder / "bitfit", "bitfit", seed=6),
        "three": make_run(vpt, folder / "three", seed=7, num_tokens=3, class_names=("left", "right", "up")),
    }


@pytest.fixture(scope="session")
def filled(runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> PromptStore:
    """line-3 has two versions, every other run is a name of its own; do not change it."""
    store = PromptStore(tmp_path_factory.mktemp("filled") / "prompts")
    for name, run in {"line-3": "deep", "other": "three", **{name: name for name in runs}}.items():
        store.add(runs[run], name=name, **OWNED)
    store.add(runs["deep_b"], name="line-3", **OWNED)
    return store


@pytest.fixture
def store(filled: PromptStore, tmp_path: Path) -> PromptStore:
    """A copy of `filled` to change."""
    return PromptStore(shutil.copytree(filled.path, tmp_path / "prompts"))
