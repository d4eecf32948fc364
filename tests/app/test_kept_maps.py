"""The viewer's loader takes a map from an archive where there is one of just this image, model, target and options."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from viewer_app import start

import explain
from app import state
from explain.errors import IntegrityError
from explain.training.pair import MatchedPair, load_pair

OPTIONS = {"n_steps": 3}


@pytest.fixture(scope="module")
def pair(tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> MatchedPair:
    """A copy of the pair with an archive of its test images in `maps`."""
    folder = tmp_path_factory.mktemp("kept") / "pair"
    shutil.copytree(tiny_pair.path, folder)
    copied = load_pair(folder)
    explain.attribute_dataset(copied, copied.test, out=folder / "maps", options={"integrated_gradients": OPTIONS})
    return copied


@pytest.fixture(autouse=True)
def started(pair: MatchedPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the viewer on this pair; whatever an archive does not have may not be computed in silence."""
    monkeypatch.setattr("sys.argv", ["main.py", str(pair.path)])
    st.cache_data.clear()
    st.cache_resource.clear()


def never(*_: object, **__: object) -> None:
    raise AssertionError("a map was computed that the archive has")


@pytest.mark.parametrize("arm", ["vpt", "ft"])
@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients", "attention_rollout"])
def test_a_kept_map_is_the_computed_one_within_its_form(
    pair: MatchedPair, monkeypatch: pytest.MonkeyPatch, arm: str, method: str
) -> None:
    run, sample = pair.runs[arm], pair.test.samples[0]
    options = OPTIONS if method == "integrated_gradients" else {}
    expected = explain.attribute(run.model, [sample.path], methods=method, targets=sample.label,
                                 options={method: options})[method]  # fmt: skip
    monkeypatch.setattr(state, "_find_maps", never)
    found = state.find_maps(run, sample, method, sample.label, options)
    assert isinstance(found, explain.Attribution) and found.provenance["archive"] == str(pair.path / "maps")
    scale = np.quantile(np.abs(expected.values), 0.995) if found.values.shape[1] > 4 else np.abs(expected.values).max()
    clipped = np.clip(expected.values, -scale, scale) if found.values.shape[1] > 4 else expected.values
    assert np.abs(found.values - clipped).max() <= 0.005 * scale
    assert found.options == expected.options and found.targets.tolist() == [sample.label]
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    for name in found.extras:
        np.testing.assert_allclose(found.extras[name], expected.extras[name], rtol=0.01, atol=1e-4)


def test_another_target_or_option_is_computed(pair: MatchedPair) -> None:
    run, sample = pair.vpt, pair.test.samples[0]
    for target, options in ((1 - sample.label, OPTIONS), (sample.label, {"n_steps": 4})):
        found = state.find_maps(run, sample, "integrated_gradients", target, options)
        assert isinstance(found, explain.Attribution) and "archive" not in found.provenance
        assert found.targets.tolist() == [target] and found.options["n_steps"] == options["n_steps"]


def test_a_damaged_shard_is_said_and_not_drawn(
    pair: MatchedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(pair.path, tmp_path / "pair"))
    file = copy / "maps/maps/000/000000.parquet"
    data = bytearray(file.read_bytes())
    data[40:60] = bytes(20)
    file.write_bytes(data)
    monkeypatch.setattr("sys.argv", ["main.py", str(copy)])
    with monkeypatch.context() as patched:
        patched.setattr(state, "_find_maps", never)
        found = state.find_maps(load_pair(copy).vpt, pair.test.samples[0], "grad_cam", pair.test.samples[0].label)
    assert isinstance(found, IntegrityError) and "damaged" in str(found)
    page = start(monkeypatch, copy)
    assert not page.exception and any("damaged" in str(box.value) for box in (*page.error, *page.warning))


def test_an_archive_elsewhere_is_named_behind_the_run(
    pair: MatchedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Path(shutil.copytree(pair.path / "maps", tmp_path / "elsewhere"))
    bare = Path(shutil.copytree(pair.path, tmp_path / "pair", ignore=shutil.ignore_patterns("maps")))
    monkeypatch.setattr("sys.argv", ["main.py", str(bare)])
    assert state.open_archive() is None
    monkeypatch.setattr("sys.argv", ["main.py", str(bare), f"--maps={elsewhere}"])
    archive = state.open_archive()
    assert archive is not None and archive.store.folder == elsewhere
