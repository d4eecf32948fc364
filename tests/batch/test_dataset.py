"""attribute_dataset: what it takes, what it writes down, and what it refuses before any work."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_archive import CLASSES, METHODS, OPTIONS, explain_all, small_model, small_models

import explain
from explain.archive.archive import MapArchive
from explain.attribution import Attribution
from explain.batch import images as listing
from explain.batch import loading
from explain.data.base import Dataset, Rejected, load_data
from explain.errors import InputError, UnknownNameError
from explain.metrics.agreement import pearson
from explain.metrics.complexity import gini
from explain.metrics.localisation import mask_on_grid, relevance_mass
from explain.metrics.patch_grid import patch_means
from explain.model import TunedModel
from explain.tensor_files import sha256_tensors
from explain.training.pair import MatchedPair

FP16, INT8 = 2.0**-11, 1 / 254
SAME_TWICE = 1e-5
"""What float32 passes of other sizes may differ by, as a part of the largest value."""


@pytest.fixture(scope="module")
def models() -> dict[str, TunedModel]:
    return small_models()


@pytest.fixture(scope="module")
def archive(models: dict[str, TunedModel], pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> MapArchive:
    """The maps of all 24 pictures by both models, of their labels."""
    return explain_all(models, pictures, tmp_path_factory.mktemp("maps") / "all")


@pytest.fixture(scope="module")
def direct(models: dict[str, TunedModel], pictures: Dataset) -> dict[str, dict[str, Attribution]]:
    """What `explain.attribute` gives for the same images, before anything is stored."""
    return {
        name: explain.attribute(model, pictures, methods=METHODS, options=OPTIONS, targets="label")
        for name, model in models.items()
    }


def few(pictures: Dataset, count: int = 4) -> Dataset:
    return pictures.select([sample.id for sample in pictures.samples[:count]])


def rollout(models: Any, data: Any, out: Path, **settings: Any) -> MapArchive:
    """The quickest method alone."""
    return explain_all(models, data, out, **{"methods": "attention_rollout", "shard_size": 12} | settings)


# ---- values


def assert_close(found: np.ndarray, expected: np.ndarray, bound: float) -> None:
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() <= (bound + SAME_TWICE) * scale


@pytest.mark.parametrize("model", ["vpt", "ft"])
@pytest.mark.parametrize("method", METHODS)
def test_maps_on_the_grid_are_those_of_attribute_in_half_precision(
    archive: MapArchive, direct: dict[str, dict[str, Attribution]], pictures: Dataset, model: str, method: str
) -> None:
    for row, sample in enumerate(pictures.samples):
        stored, expected = archive[sample.id][model][method], direct[model][method]
        values = expected.values[row]
        on_grid = values if values.shape == (3, 4) else patch_means(values[None], (3, 4))[0] * 64
        assert_close(stored.on_grid, on_grid, FP16)
        assert stored.target == expected.targets[row] == sample.label


def test_maps_in_pixels_are_kept_in_127_steps_up_to_the_clip(
    archive: MapArchive, direct: dict[str, dict[str, Attribution]], pictures: Dataset
) -> None:
    for row, sample in enumerate(pictures.samples):
        stored = archive[sample.id]["vpt"]["integrated_gradients"]
        expected = direct["vpt"]["integrated_gradients"].values[row]
        clip = np.percentile(np.abs(expected), 99.5)
        assert stored.form == "int8"
        assert stored.shape == (24, 32)
        assert np.abs(np.asarray(stored) - np.clip(expected, -clip, clip)).max() <= (INT8 + SAME_TWICE) * clip


def test_logits_are_kept_in_full(
    archive: MapArchive, direct: dict[str, dict[str, Attribution]], pictures: Dataset
) -> None:
    for model in archive.models:
        found = np.stack([image.logits[model] for image in archive])
        np.testing.assert_allclose(found, direct[model]["grad_cam"].logits, rtol=1e-5, atol=1e-6)


def test_numbers_come_from_the_maps_before_they_are_stored(
    archive: MapArchive, direct: dict[str, dict[str, Attribution]]
) -> None:
    table = archive.to_pandas()
    maps = direct["vpt"]["integrated_gradients"]
    # int8 clips at the 99.5th percentile: this is the largest value only if it was read from float32
    np.testing.assert_allclose(table["vpt_integrated_gradients_high"], maps.values.max(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(
        table["vpt_integrated_gradients_gini"], gini(patch_means(maps.values, (3, 4))), rtol=1e-4
    )
    np.testing.assert_allclose(
        table["vpt_integrated_gradients_completeness_gap"], maps.extras["completeness_gap"], rtol=1e-3, atol=1e-5
    )
    agreement = pearson(direct["vpt"]["grad_cam"].values, direct["ft"]["grad_cam"].values)
    np.testing.assert_allclose(table["agreement_grad_cam_vpt_ft"], agreement, rtol=1e-3, atol=1e-4)


def test_the_table_says_what_each_model_answers(
    archive: MapArchive, direct: dict[str, dict[str, Attribution]], pictures: Dataset
) -> None:
    table = archive.to_pandas()
    labels = np.array([sample.label for sample in pictures.samples])
    assert table["row"].tolist() == list(range(24))
    assert table["id"].tolist() == [sample.id for sample in pictures.samples]
    assert table["label"].tolist() == labels.tolist()
    assert set(table["status"]) == {"ok"}
    for model in archive.models:
        maps = direct[model]["grad_cam"]
        assert table[f"{model}_prediction"].tolist() == maps.predictions.tolist()
        assert table[f"{model}_correct"].tolist() == (maps.predictions == labels).tolist()
        np.testing.assert_allclose(table[f"{model}_confidence"], maps.probabilities.max(axis=1), rtol=1e-5)
        np.testing.assert_allclose(
            table[f"{model}_target_probability"], maps.probabilities[np.arange(24), labels], rtol=1e-4
        )


# ---- models


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (lambda pair: pair, ("vpt", "ft")),
        (lambda pair: pair.path, ("vpt", "ft")),
        (lambda pair: str(pair.path), ("vpt", "ft")),
        (lambda pair: pair.runs["linear"], ("linear",)),
        (lambda pair: pair.vpt.path, ("vpt",)),
        (lambda pair: pair.vpt.model, ("model",)),
        (lambda pair: {"one": pair.vpt.model, "other": pair.ft.path, "third": pair.runs["linear"]},
         ("one", "other", "third")),
    ],
    ids=["pair", "folder of a pair", "its name", "run", "folder of a run", "model", "dictionary"],
)  # fmt: skip
def test_models_may_be_given_as(
    given: Callable[[MatchedPair], Any], names: tuple[str, ...], tiny_pair: MatchedPair, pictures: Dataset,
    tmp_path: Path,
) -> None:  # fmt: skip
    found = rollout(given(tiny_pair), few(pictures, 2), tmp_path / "maps")
    assert found.models == names
    assert found.class_names == CLASSES
    assert all(image[name]["attention_rollout"].shape == (4, 4) for image in found for name in names)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "at least one model"),
        ({"a model": 1}, "TunedModel"),
        ({"../up": small_model()}, "names of a letter"),
        ({"a.b": small_model()}, "names of a letter"),
        ([small_model()], "TunedModel"),
        (3, "TunedModel"),
    ],
)
def test_what_is_no_model_is_refused(given: Any, words: str, pictures: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        rollout(given, pictures, tmp_path / "maps")


def test_a_model_from_memory_is_left_as_it_was(pictures: Dataset, tmp_path: Path) -> None:
    model = small_model().train()
    model.vit.head.weight.requires_grad_(False)
    before, random = sha256_tensors(model.state_dict()), torch.get_rng_state()
    explain_all(model, few(pictures), tmp_path / "maps")
    assert sha256_tensors(model.state_dict()) == before
    assert model.training
    assert not model.vit.head.weight.requires_grad and model.vit.head.bias.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_every_image_is_read_and_decoded_once_for_all_models(
    models: dict[str, TunedModel], pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, decoded = Counter[str](), []

    def reading(path: Path, **rest: Any) -> bytes:
        read[path.relative_to(pictures.root).as_posix()] += 1
        return real_read(path, **rest)

    def decoding(data: bytes) -> Any:
        decoded.append(len(data))
        return real_decode(data)

    real_read, real_decode = loading.read_bytes, loading.decode_bytes
    monkeypatch.setattr(loading, "read_bytes", reading)
    monkeypatch.setattr(listing, "read_bytes", reading)
    monkeypatch.setattr(loading, "decode_bytes", decoding)
    explain_all(models, pictures, tmp_path / "maps")
    # what the estimate looks at beforehand is decoded by a process of its own
    assert read == {sample.id: 1 for sample in pictures.samples}
    assert len(decoded) == 24


# ---- images


def test_a_folder_with_the_models_classes_is_a_labelled_data_set(pictures: Dataset, tmp_path: Path) -> None:
    found = rollout(small_model(), pictures.root, tmp_path / "maps")
    table = found.to_pandas()
    assert table["label"].tolist() == [0] * 12 + [1] * 12
    assert table["id"].tolist() == [sample.id for sample in pictures.samples]
    assert table["model_correct"].notna().all()


def test_a_folder_of_models_with_other_classes_is_a_list_of_images(pictures: Dataset, tmp_path: Path) -> None:
    found = rollout(small_model(classes=("cat", "dog")), str(pictures.root), tmp_path / "maps")
    table = found.to_pandas()
    assert table["label"].isna().all() and table["model_correct"].isna().all()
    assert list(found.ids()) == [sample.id for sample in pictures.samples]
    assert found.job.targets == "predicted"


def test_a_list_of_files_keeps_its_order(pictures: Dataset, tmp_path: Path) -> None:
    paths = [sample.path for sample in reversed(pictures.samples[:5])]
    found = rollout(small_model(), paths, tmp_path / "maps")
    assert [image.path for image in found] == paths


def test_one_image_may_be_given_by_its_name(pictures: Dataset, tmp_path: Path) -> None:
    found = rollout(small_model(), str(pictures.samples[3].path), tmp_path / "maps")
    assert len(found) == 1
    assert next(iter(found)).path == pictures.samples[3].path


def test_no_data_means_the_images_of_the_archive(pictures: Dataset, tmp_path: Path) -> None:
    first = rollout(small_model(), few(pictures), tmp_path / "maps")
    again = rollout(small_model(), None, tmp_path / "maps")
    assert list(again.ids()) == list(first.ids())
    with pytest.raises(InputError, match="holds no archive to go on with"):
        rollout(small_model(), None, tmp_path / "new")


def test_copies_of_an_image_are_images_of_their_own(pictures: Dataset, tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        shutil.copyfile(pictures.samples[0].path, tmp_path / name)
    found = rollout(small_model(), [tmp_path / "one.png", tmp_path / "two.png"], tmp_path / "maps")
    entries = found.manifest.shard(0)
    assert entries[0].sha256 == entries[1].sha256 and entries[0].id != entries[1].id
    first, second = (np.asarray(image["model"]["attention_rollout"]) for image in found)
    np.testing.assert_array_equal(first, second)


def test_the_same_file_twice_is_refused_before_the_work(pictures: Dataset, tmp_path: Path) -> None:
    path = pictures.samples[0].path
    with pytest.raises(InputError, match="twice"):
        rollout(small_model(), [path, pictures.samples[1].path, path], tmp_path / "maps")
    assert not (tmp_path / "maps" / "job.json").exists()


@pytest.mark.parametrize("given", ["empty folder", "empty list", "nowhere", b"bytes", {"a": 1}, 7])
def test_what_holds_no_images_is_refused(given: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    data = {"empty folder": tmp_path / "empty", "empty list": [], "nowhere": tmp_path / "nowhere"}.get(
        given if isinstance(given, str) else "", given
    )
    with pytest.raises(InputError):
        rollout(small_model(), data, tmp_path / "maps")
    assert not (tmp_path / "maps" / "job.json").exists()


def test_images_that_cannot_be_used_are_rows_with_a_reason(pictures: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copyfile(pictures.samples[0].path, folder / "good.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(pictures.samples[0].path.read_bytes()[:400])
    found = rollout(small_model(), folder, tmp_path / "maps")
    table = found.to_pandas().set_index("id")
    assert table["status"].to_dict() == {"good.png": "ok", "empty.png": "empty", "cut.png": "truncated"}
    assert table.loc["cut.png", "detail"] and table.loc["good.png", "detail"] == ""
    assert found.finished is not None
    assert found.finished.statuses == {"empty": 1, "ok": 1, "truncated": 1}
    assert dict(found["empty.png"]) == {}
    with pytest.raises(UnknownNameError, match="has no maps: empty"):
        found["empty.png"]["model"]
    assert found["good.png"]["model"]["attention_rollout"].shape == (3, 4)


def test_a_file_without_a_label_among_labelled_images_is_a_row_with_a_reason(pictures: Dataset, tmp_path: Path) -> None:
    """What the data set rejected when it was read, and somebody put right since."""
    repaired = Rejected(pictures.samples[5].path, "empty", "the file has no bytes")
    given = replace(few(pictures), rejected=(repaired,))
    found = rollout(small_model(), given, tmp_path / "maps", targets="label").to_pandas()
    assert found["status"].tolist() == ["ok"] * 4 + ["no_label"]
    assert "its label is None" in found["detail"].iloc[4]


def test_masks_of_a_table_say_how_much_of_a_map_lies_inside(pictures: Dataset, tmp_path: Path) -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    rows = ["path,label,mask"]
    for number, sample in enumerate((*pictures.samples[:2], *pictures.samples[-2:])):
        shutil.copyfile(sample.path, tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{CLASSES[sample.label]},{'mask.png' if number != 1 else ''}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    found = explain_all(small_model(), tmp_path / "table.csv", tmp_path / "maps", targets="label")
    data = load_data(tmp_path / "table.csv")
    maps = explain.attribute(small_model(), data, methods="grad_cam", targets="label")["grad_cam"].values
    shares = mask_on_grid(np.repeat((mask > 0)[None], 4, axis=0), (3, 4))
    expected = relevance_mass(maps, shares)
    inside = found.to_pandas()["model_grad_cam_relevance_mass"].to_numpy()
    assert np.isnan(inside[1])
    np.testing.assert_allclose(inside[[0, 2, 3]], expected[[0, 2, 3]], rtol=1e-4)


# ---- targets


@pytest.mark.parametrize(
    ("targets", "expected"),
    [("label", [0, 0, 1, 1]), ("right", [1] * 4), ("left", [0] * 4), (1, [1] * 4)],
)  # fmt: skip
def test_targets_decide_the_class_that_is_explained(
    targets: Any, expected: list[int], pictures: Dataset, tmp_path: Path
) -> None:
    data = pictures.select([pictures.samples[row].id for row in (0, 1, 12, 13)])
    found = rollout(small_model(), data, tmp_path / "maps", targets=targets)
    assert found.to_pandas()["model_target"].tolist() == expected
    assert [image["model"]["attention_rollout"].target for image in found] == expected


def test_without_targets_each_model_explains_its_answer_and_a_pair_the_label(
    archive: MapArchive, pictures: Dataset, tmp_path: Path
) -> None:
    alone = rollout(small_model(), pictures, tmp_path / "maps").to_pandas()
    assert alone["model_target"].tolist() == alone["model_prediction"].tolist()
    both = archive.to_pandas()
    assert both["vpt_target"].tolist() == both["ft_target"].tolist() == both["label"].tolist()


@pytest.mark.parametrize(
    ("targets", "words"),
    [("middle", "one of left, right"), (2, "out of range"), (-1, "out of range"), (True, "out of range"),
     (1.0, "out of range"), ([0, 1], "out of range")],
)  # fmt: skip
def test_a_target_that_the_models_do_not_know_is_refused(
    targets: Any, words: str, pictures: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        rollout(small_model(), pictures, tmp_path / "maps", targets=targets)


def test_labels_are_asked_for_where_there_are_none(pictures: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="have no labels"):
        rollout(small_model(), [pictures.samples[0].path], tmp_path / "maps", targets="label")


def test_models_that_count_classes_differently_share_no_target(pictures: Dataset, tmp_path: Path) -> None:
    crossed = {"vpt": small_model(), "ft": small_model(4, ("right", "left"))}
    for targets in (None, "label", "left", 0):
        with pytest.raises(InputError, match="different classes"):
            rollout(crossed, pictures, tmp_path / "maps", targets=targets)
    found = rollout(crossed, few(pictures), tmp_path / "maps", targets="predicted")
    assert found.job.targets == "predicted"


def test_labels_of_other_classes_than_the_models_are_refused(pictures: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in this order"):
        rollout(small_model(classes=("right", "left")), pictures, tmp_path / "maps", targets="label")


def test_labels_that_name_no_class_of_the_model_are_not_compared_with_its_answers(
    pictures: Dataset, tmp_path: Path
) -> None:
    found = rollout(small_model(classes=("right", "left")), pictures, tmp_path / "maps")
    assert found.job.targets == "predicted"
    assert found.to_pandas()["model_correct"].isna().all()


# ---- what is kept


@pytest.mark.parametrize(("policy", "form", "bound"), [("fp16", "fp16", FP16), ("int8", "int8", None)])
def test_the_policy_decides_the_form_of_maps_in_pixels(
    policy: str, form: str, bound: float | None, pictures: Dataset, tmp_path: Path
) -> None:
    found = explain_all(small_model(), few(pictures), tmp_path / "maps", store_maps=policy)
    maps = explain.attribute(small_model(), few(pictures), methods="integrated_gradients", options=OPTIONS)
    for image, expected in zip(found, maps["integrated_gradients"].values, strict=True):
        stored = image["model"]["integrated_gradients"]
        assert (stored.form, stored.shape) == (form, (24, 32))
        if bound is not None:
            assert_close(stored.values, expected, bound)


def test_the_policy_grid_keeps_sums_over_patches(pictures: Dataset, tmp_path: Path) -> None:
    found = explain_all(small_model(), few(pictures), tmp_path / "maps", store_maps="grid")
    maps = explain.attribute(small_model(), few(pictures), methods="integrated_gradients", options=OPTIONS)
    for image, expected in zip(found, maps["integrated_gradients"].values, strict=True):
        stored = image["model"]["integrated_gradients"]
        assert stored.shape == (3, 4)
        bound = 12 * FP16 * float(np.abs(stored.values).max())
        assert np.asarray(stored).sum() == pytest.approx(expected.sum(), abs=bound)


def test_the_policy_sample_keeps_some_pixels_and_those_of_images_on_which_models_differ(
    models: dict[str, TunedModel], pictures: Dataset, tmp_path: Path
) -> None:
    found = explain_all(models, pictures, tmp_path / "maps", store_maps="sample:6:1")
    table = found.to_pandas().set_index("id")
    kept = {image.id for image in found if image["vpt"]["integrated_gradients"].shape == (24, 32)}
    remarkable = {
        name for name, row in table.iterrows() if row["vpt_prediction"] != row["ft_prediction"]
    }
    assert remarkable and remarkable <= kept
    assert 0 < len(kept - remarkable) < len(table) - len(remarkable)
    assert all(image["vpt"]["integrated_gradients"].on_grid.shape == (3, 4) for image in found)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"store_maps": "png"}, InputError, "store_maps"),
        ({"store_maps": "sample:0"}, InputError, "store_maps"),
        ({"precision": "fp64"}, InputError, "precision"),
        ({"shard_size": 0}, InputError, "shard_size"),
        ({"batch_size": 0}, InputError, "batch_size"),
        ({"threads": 0}, InputError, "threads"),
        ({"memory_budget": -1}, InputError, "memory_budget"),
        ({"device": "tpu"}, InputError, "device"),
        ({"backend": "cloud"}, UnknownNameError, "inline"),
        ({"methods": "lime"}, UnknownNameError, "lime"),
        ({"methods": ()}, InputError, "at least one method"),
        ({"methods": "grad_cam", "options": {"grad_cam": {"depth": 3}}}, InputError, "depth"),
        ({"methods": "grad_cam", "options": {"attention_rollout": {}}}, UnknownNameError, "attention_rollout"),
        ({"methods": "integrated_gradients",
          "options": {"integrated_gradients": {"baseline": Image.new("RGB", (32, 24))}}}, InputError, "written down"),
    ],
)  # fmt: skip
def test_an_argument_that_does_not_fit_is_refused_before_the_work(
    settings: dict[str, Any], error: type[Exception], words: str, pictures: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        explain_all(small_model(), pictures, tmp_path / "maps", **settings)
    assert not (tmp_path / "maps" / "job.json").exists()


def test_what_a_run_will_take_is_said_before_it_begins(pictures: Dataset, tmp_path: Path) -> None:
    said: list[str] = []
    rollout(small_model(), pictures, tmp_path / "maps", say=said.append)
    assert said[0].startswith("24 images: about ") and "images/s" in said[0]


def test_torch_has_as_many_threads_after_a_call_as_before(
    pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, used = small_model(), []
    forward = type(model).forward

    def counting(self: TunedModel, images: torch.Tensor) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return forward(self, images)

    monkeypatch.setattr(type(model), "forward", counting)
    before = torch.get_num_threads()
    rollout(model, few(pictures), tmp_path / "maps", threads=before + 1)
    assert set(used) == {before + 1} and torch.get_num_threads() == before


def test_progress_ends_at_all_images(pictures: Dataset, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    rollout(small_model(), pictures, tmp_path / "maps", progress=lambda *step: told.append(step))
    explaining = [(done, total) for what, done, total in told if what == "explaining"]
    assert explaining[-1] == (24, 24)
    assert explaining == sorted(explaining)
