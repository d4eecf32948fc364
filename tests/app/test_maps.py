"""A map comes from an archive that has one of just this image, model, target and options, else from the worker."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from viewer_app import SECONDS, panel, start

import explain
from app import maps, opening, worker
from app.maps import Wanted
from app.opening import Opened
from explain.archive.archive import MapArchive
from explain.errors import ExplainError, IntegrityError
from explain.training.pair import MatchedPair, load_pair

OPTIONS = {"n_steps": 3}
METHODS = ("grad_cam", "integrated_gradients", "attention_rollout")


@pytest.fixture(scope="module")
def pair(tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> MatchedPair:
    """A copy of the pair with an archive of its test images in `maps`."""
    folder = tmp_path_factory.mktemp("kept") / "pair"
    shutil.copytree(tiny_pair.path, folder)
    copied = load_pair(folder)
    explain.attribute_dataset(copied, copied.test, out=folder / "maps", options={"integrated_gradients": OPTIONS})
    return copied


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    worker.the_worker.clear()


@pytest.fixture
def opened(pair: MatchedPair) -> Opened:
    return Opened(str(pair.path), pair, MapArchive(pair.path / "maps"))


def compute(opened: Opened, name: str, wanted: Wanted) -> Any:
    image = opened.image(name)
    worker.the_worker().wish("test", [maps.work_of(opened, image, wanted, "a map")])
    until = time.monotonic() + SECONDS
    while (found := maps.ready(opened, image, wanted)) is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("arm", ["vpt", "ft"])
@pytest.mark.parametrize("method", METHODS)
def test_a_kept_map_is_the_computed_one_within_its_form(opened: Opened, arm: str, method: str) -> None:
    sample = opened.pair.test.samples[0]
    options = OPTIONS if method == "integrated_gradients" else {}
    expected = explain.attribute(opened.run(arm).model, [sample.path], methods=method, targets=sample.label,
                                 options={method: options})[method]  # fmt: skip
    found = maps.ready(opened, opened.image(sample.id), Wanted(arm, method, sample.label))
    assert isinstance(found, explain.Attribution) and found.provenance["archive"] == opened.archive.store.url
    scale = np.quantile(np.abs(expected.values), 0.995) if found.values.shape[1] > 4 else np.abs(expected.values).max()
    clipped = np.clip(expected.values, -scale, scale) if found.values.shape[1] > 4 else expected.values
    assert np.abs(found.values - clipped).max() <= 0.005 * scale
    assert found.options == expected.options and found.targets.tolist() == [sample.label]
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    for name in found.extras:
        np.testing.assert_allclose(found.extras[name], expected.extras[name], rtol=0.01, atol=1e-4)


def test_another_target_is_computed_with_the_options_of_the_archive(opened: Opened) -> None:
    sample = opened.pair.test.samples[0]
    wanted = Wanted("vpt", "integrated_gradients", 1 - sample.label)
    assert maps.ready(opened, opened.image(sample.id), wanted) is None
    found = compute(opened, sample.id, wanted)
    assert "archive" not in found.provenance and found.targets.tolist() == [1 - sample.label]
    assert found.options["n_steps"] == 3


def test_a_map_that_does_not_depend_on_the_class_serves_every_target(opened: Opened) -> None:
    sample = opened.pair.test.samples[0]
    wanted = [Wanted("ft", "attention_rollout", target) for target in (0, 1)]
    found = [maps.ready(opened, opened.image(sample.id), one) for one in wanted]
    assert all(isinstance(part, explain.Attribution) for part in found)
    np.testing.assert_array_equal(found[0].values, found[1].values)


def test_an_image_that_the_archive_does_not_have_is_computed(opened: Opened) -> None:
    (name, *_) = opened.pair.split.train
    assert opened.explained(name) is None
    assert "archive" not in compute(opened, name, Wanted("vpt", "grad_cam", 0)).provenance


def test_a_damaged_shard_is_said_and_not_drawn(
    pair: MatchedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(pair.path, tmp_path / "pair"))
    file = copy / "maps/maps/000/000000.parquet"
    data = bytearray(file.read_bytes())
    data[40:60] = bytes(20)
    file.write_bytes(data)
    damaged = Opened(str(copy), load_pair(copy), MapArchive(copy / "maps"))
    sample = pair.test.samples[0]
    found = maps.ready(damaged, damaged.image(sample.id), Wanted("vpt", "grad_cam", sample.label))
    assert isinstance(found, IntegrityError) and "damaged" in str(found)
    page = start(monkeypatch, copy, "inspect")
    assert not page.exception and not page.error, [error.value for error in page.error]
    assert all("damaged" in cell["message"] and not cell["values"] for cell in panel(page)["cells"])


def test_an_archive_alone_shows_what_it_has_and_says_what_it_has_not(pair: MatchedPair) -> None:
    alone = Opened("maps", None, MapArchive(pair.path / "maps"))
    sample = pair.test.samples[0]
    assert alone.models == ("vpt", "ft") and alone.index.count == len(pair.test)
    assert isinstance(maps.ready(alone, alone.image(sample.id), Wanted("vpt", "grad_cam", sample.label)),
                      explain.Attribution)  # fmt: skip
    for wanted, words in ((Wanted("vpt", "grad_cam", 1 - sample.label), "another class"),
                          (Wanted("vpt", "raw_attention", sample.label), "not raw_attention")):  # fmt: skip
        found = maps.ready(alone, alone.image(sample.id), wanted)
        assert isinstance(found, ExplainError) and words in str(found) and "explain view" in str(found)


def test_an_archive_whose_pair_lies_where_it_was_opens_the_pair_too(
    pair: MatchedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["main.py", str(pair.path / "maps")])
    found = opening.open_location()
    assert found.archive is not None and found.pair is not None and set(found.kept_as) == {"vpt", "ft"}
    elsewhere = Path(shutil.copytree(pair.path / "maps", tmp_path / "elsewhere"))
    bare = Path(shutil.copytree(pair.path, tmp_path / "pair", ignore=shutil.ignore_patterns("maps")))
    monkeypatch.setattr("sys.argv", ["main.py", str(bare)])
    assert opening.open_location().archive is None
    monkeypatch.setattr("sys.argv", ["main.py", str(bare), f"--maps={elsewhere}"])
    named = opening.open_location()
    assert named.archive is not None and named.archive.store.folder == elsewhere and named.pair is not None


def test_the_index_has_the_archives_numbers_and_the_test_images_it_lacks(
    pair: MatchedPair, tmp_path: Path
) -> None:
    some = tmp_path / "some"
    data = pair.data.select(sorted(pair.split.test)[:3])
    explain.attribute_dataset(pair, data, out=some, methods=("grad_cam",))
    index = Opened(str(pair.path), pair, MapArchive(some)).index
    assert index.count == len(pair.test)
    rows = index.fetch(range(index.count), ["id", "part", "vpt_correct", "vpt_grad_cam_gini"])
    assert sum(row["vpt_grad_cam_gini"] is not None for row in rows) == 3
    correct = dict(zip(pair.vpt.predictions.ids, pair.vpt.predictions.correct.tolist(), strict=True))
    assert {row["id"]: row["vpt_correct"] for row in rows} == correct and {row["part"] for row in rows} == {"test"}


def test_answers_are_the_runs_on_test_images_and_the_archives_on_others(pair: MatchedPair, tmp_path: Path) -> None:
    (name, *_) = pair.split.train
    explain.attribute_dataset(pair, pair.data.select([name]), out=tmp_path / "one", methods=("grad_cam",))
    opened = Opened(str(pair.path), pair, MapArchive(tmp_path / "one"))
    logits = pair.vpt.model(explain.engine.load_images([opened.image(name).path], pair.vpt.model.transform))
    np.testing.assert_allclose(opened.answer("vpt", name).probabilities, logits.softmax(1)[0].detach(), atol=1e-5)
    sample = pair.test.samples[0]
    answer = opened.answer("ft", sample.id)
    assert answer.right == bool(pair.ft.predictions.correct[pair.ft.predictions.ids.index(sample.id)])
    assert opened.answer("linear", name) is None
