"""attribute(): targets, forms of input, options, errors, provenance and threads."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vits import BASE, SIZE, tiny_images, tiny_vit

import explain
from explain.attribution import Attribution
from explain.data.base import Dataset
from explain.engine import attribute, attribute_targets
from explain.errors import ExplainError, InputError, NonFiniteError, UnknownNameError
from explain.methods.base import METHODS, Maps, Method
from explain.model import TunedModel
from explain.tuning.base import tune
from explain.wrapping import wrap

QUICK = {"integrated_gradients": {"max_nodes": 5}}


def explain_all(model: TunedModel, images: Any, **more: Any) -> dict[str, Attribution]:
    return attribute(model, images, options=QUICK, **more)


def same(left: dict[str, Attribution], right: dict[str, Attribution]) -> bool:
    return left.keys() == right.keys() and all(
        np.array_equal(found.values, right[name].values)
        and all(np.array_equal(values, right[name].extras[key]) for key, values in found.extras.items())
        for name, found in left.items()
    )


@pytest.mark.parametrize(
    "targets",
    [
        2,
        [2, 2, 2],
        (2, 2, 2),
        torch.tensor(2),
        torch.tensor([2, 2, 2]),
        np.int64(2),
        np.full(3, 2),
        np.full(3, 2, np.uint8),
    ],
)
def test_a_target_may_be_one_index_or_one_per_image(targets: Any) -> None:
    found = explain_all(wrap(tiny_vit()), tiny_images(), targets=targets)
    assert all(maps.targets.tolist() == [2, 2, 2] for maps in found.values())
    assert same(found, explain_all(wrap(tiny_vit()), tiny_images(), targets=2))


def test_each_image_keeps_its_own_target_across_batches() -> None:
    model, targets = wrap(tiny_vit()), [4, 0, 2, 1, 3]
    whole = explain_all(model, tiny_images(5), targets=targets, batch_size=2)
    for row, target in enumerate(targets):
        alone = explain_all(model, tiny_images(5)[row : row + 1], targets=target)
        for name, maps in whole.items():
            assert maps.targets[row] == target
            np.testing.assert_allclose(maps.values[row], alone[name].values[0], rtol=1e-5, atol=1e-8)


def test_without_targets_the_predicted_class_is_explained() -> None:
    model = wrap(tiny_vit())
    predicted = model(tiny_images(6)).argmax(1)
    assert len(set(predicted.tolist())) > 1
    found = explain_all(model, tiny_images(6))
    assert all(maps.targets.tolist() == predicted.tolist() for maps in found.values())
    assert same(found, explain_all(model, tiny_images(6), targets=predicted))
    np.testing.assert_allclose(found["grad_cam"].logits, model(tiny_images(6)).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        (5, r"target \[5\] out of range; the model has 5 classes, 0 to 4"),
        (-1, r"target \[-1\] out of range"),
        ([0, 1], "expected 3 targets, one per image, got 2"),
        ([], "expected integer class indices, got torch.float32"),
        ([0.0, 1.0, 2.0], "expected integer class indices, got torch.float32"),
        (True, "expected integer class indices, got torch.bool"),
        ([[0, 1, 2]], r"of shape \(1, 3\)"),
        ([[0], [1, 2], [3]], "expected a class index or one per image"),
        (["cat", "dog", "cat"], "expected a class index or one per image"),
        ([None, 1, 2], "expected a class index or one per image"),
        ("cat", "expected targets 'label' with a labelled data set.*got 'cat' with Tensor"),
        ("label", "expected targets 'label' with a labelled data set"),
    ],
)
def test_wrong_targets_are_refused(targets: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        explain_all(wrap(tiny_vit()), tiny_images(), targets=targets)


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"methods": "gradcam"}, UnknownNameError, "unknown method 'gradcam'; known: .*grad_cam"),
        ({"methods": ()}, InputError, "expected at least one method; known: "),
        (
            {"options": {"grad_cam": {"layers": 1}}},
            InputError,
            "method 'grad_cam' has no option 'layers'; it takes: layer",
        ),
        (
            {"methods": "grad_cam", "options": {"attention_rollout": {}}},
            UnknownNameError,
            "options for attention_rollout",
        ),
        ({"options": {"attention_rollout": {"residual": "half"}}}, InputError, "wrong type"),
        ({"batch_size": 0}, InputError, "expected batch_size of at least 1, got 0"),
    ],
)
def test_wrong_methods_and_options_are_refused(arguments: Any, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        attribute(wrap(tiny_vit()), tiny_images(), **arguments)


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (tiny_images()[:0], "expected at least one image, got none"),
        ([], "expected at least one image, got none"),
        ("photo.png", "put it into a list"),
        (Path("photo.png"), "put it into a list"),
        (Image.new("RGB", (32, 24)), "put it into a list"),
        (tiny_images().numpy(), r"expected a uint8 array \(H, W, 3\), got float64"),
        ([np.zeros((24, 32), np.uint8)], r"expected a uint8 array \(H, W, 3\), got uint8 of shape \(24, 32\)"),
        ([tiny_images()[0]], "expected a path, a PIL image or a uint8 array, got Tensor"),
        (tiny_images()[0], r"got shape \(3, 24, 32\)"),
    ],
)
def test_wrong_images_are_refused(images: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        explain_all(wrap(tiny_vit()), images)


def test_the_bad_image_is_named_by_its_place_in_the_whole_call() -> None:
    images = tiny_images(5)
    images[4, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"images \[4\] hold NaN"):
        explain_all(wrap(tiny_vit()), images, batch_size=2)
    broken = wrap(tiny_vit())
    with torch.no_grad():
        broken.vit.norm.weight[0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"logits of image\(s\) \[0, 1\] are NaN or infinite"):
        explain_all(broken, tiny_images(4), batch_size=2)


def test_a_map_that_is_not_finite_is_an_error_not_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Holes(Method):
        name = label = "holes"

        def __call__(self, trace: Any, targets: torch.Tensor) -> Maps:
            values = torch.zeros(len(targets), 2, 2)
            values[-1, 0, 0] = torch.nan
            return Maps(values)

    METHODS["grad_cam"]  # fill the registry first
    monkeypatch.setitem(METHODS._classes, "holes", Holes)
    with pytest.raises(NonFiniteError, match=r"holes maps of image\(s\) \[2\]"):
        attribute(wrap(tiny_vit()), tiny_images(), methods="holes")


def test_what_is_no_tuned_model_is_refused() -> None:
    with pytest.raises(InputError, match="expected a TunedModel, got VisionTransformer; use explain.wrap"):
        explain_all(tiny_vit(), tiny_images())  # type: ignore[arg-type]


def test_a_head_that_gives_other_logits_than_promised_is_refused() -> None:
    model = wrap(tiny_vit())
    model.vit.head = torch.nn.Linear(BASE["embed_dim"], 3, dtype=torch.float64)
    with pytest.raises(InputError, match=r"expected logits of shape \(3, 5\), the model gives \(3, 3\)"):
        explain_all(model, tiny_images(), targets=4)
    with pytest.raises(InputError, match=r"the model gives \(3, 13, 5\)"):
        explain_all(wrap(tiny_vit(global_pool="")), tiny_images())


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three pictures of other sizes than the model's input."""
    generator = np.random.default_rng(0)
    paths = []
    for index, size in enumerate([(24, 32), (40, 50), (60, 20)]):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def test_paths_pictures_arrays_and_tensors_of_one_picture_give_one_map(photos: list[Path]) -> None:
    model = wrap(tiny_vit())
    pictures = [Image.open(path).convert("RGB") for path in photos]
    tensor = torch.stack([model.transform.normalise(model.transform.pixels(picture)) for picture in pictures])
    forms: list[Any] = [
        tensor,
        photos,
        [str(path) for path in photos],
        pictures,
        [np.asarray(picture) for picture in pictures],
    ]
    first, *others = (explain_all(model, form) for form in forms)
    assert all(same(first, other) for other in others)
    assert first["grad_cam"].values.std() > 0 and first["integrated_gradients"].image_size == SIZE


def test_pictures_are_scaled_to_0_1_and_normalised_per_channel(photos: list[Path]) -> None:
    from explain.engine import load_images

    model = wrap(tiny_vit())
    found = load_images(photos[:1], model.transform)[0]
    pixels = np.asarray(Image.open(photos[0]), np.float32) / 255
    expected = (pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(found.numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_a_data_set_brings_its_labels(pictures: Dataset) -> None:
    model = tune(tiny_vit(), "linear", class_names=pictures.class_names)
    some = pictures.select([sample.id for sample in pictures.samples[::5]])
    found = explain_all(model, some, targets="label", batch_size=2)
    assert found["grad_cam"].targets.tolist() == [sample.label for sample in some.samples]
    assert same(found, explain_all(model, [sample.path for sample in some.samples], targets=found["grad_cam"].targets,
                                   batch_size=2))  # fmt: skip


def test_methods_that_share_a_pass_give_what_they_give_alone() -> None:
    model = tune(tiny_vit(), "prompt", num_tokens=3)
    together = explain_all(model, tiny_images())
    assert list(together) == ["grad_cam", "integrated_gradients", "attention_rollout"]
    for name, maps in together.items():
        alone = attribute(
            model, tiny_images(), methods=[name], options={key: QUICK[key] for key in QUICK if key == name}
        )
        np.testing.assert_allclose(maps.values, alone[name].values, rtol=1e-5, atol=1e-8)


def test_the_shared_pass_runs_the_transformer_once() -> None:
    model, calls = wrap(tiny_vit()), []
    model.vit.norm.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    attribute(model, tiny_images(5), methods=["grad_cam", "attention_rollout"], batch_size=2)
    assert calls == [2, 2, 1]


def test_a_map_says_how_it_was_made() -> None:
    model = tune("random:vit_tiny_patch16_224", "prompt", class_names=("cat", "dog"), image_size=32, num_tokens=2)
    found = attribute(model, tiny_images(1, (32, 32)).float(), options=QUICK, batch_size=4)
    provenance = found["grad_cam"].provenance
    assert provenance["tuning"] == "prompt" and provenance["tuning_options"]["num_tokens"] == 2
    assert provenance["backbone"] == {"spec": "random:vit_tiny_patch16_224", "sha256": model.card.sha256}
    assert (
        provenance["layer"] == "blocks.11.norm1" and provenance["dtype"] == "float32" and provenance["batch_size"] == 4
    )
    assert {"torch", "timm", "python"} <= provenance["versions"].keys() and provenance["elapsed_s"] >= 0
    assert found["integrated_gradients"].options == {
        "n_steps": None, "tol_gap": 0.02, "tol_map": 0.1, "max_nodes": 5, "baseline": "black", "noise_draws": 4,
        "seed": 0, "prompts": False,
    }  # fmt: skip


def test_progress_counts_images() -> None:
    seen: list[tuple[int, int]] = []
    explain_all(wrap(tiny_vit()), tiny_images(5), batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("make", [lambda: wrap(tiny_vit()), lambda: tune(tiny_vit(), "prompt", num_tokens=3)])
def test_threads_on_one_model_give_the_serial_maps_bitwise(make: Any) -> None:
    """Two threads explain 20 times each while a third uses the same model."""
    model, batches = make().eval(), [tiny_images(2, seed=seed) for seed in range(5)]
    serial = [explain_all(model, batch) for batch in batches]
    expected = [model(batch) for batch in batches]
    stop, plain_wrong = threading.Event(), []

    def use() -> None:
        while not stop.is_set():
            for batch, logits in zip(batches, expected, strict=True):
                if not torch.equal(model(batch), logits):
                    plain_wrong.append(batch)

    def explain_20(first: int) -> list[bool]:
        order = [(first + step) % len(batches) for step in range(20)]
        return [same(explain_all(model, batches[index]), serial[index]) for index in order]

    user = threading.Thread(target=use)
    user.start()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(explain_20, (0, 2)))
    stop.set()
    user.join()
    assert found == [[True] * 20] * 2 and not plain_wrong


def test_eight_threads_of_fifty_calls_give_no_wrong_map() -> None:
    model, batches = tune(tiny_vit(), "prompt", num_tokens=3), [tiny_images(2, seed=seed) for seed in range(4)]
    options = {"integrated_gradients": {"n_steps": 2}}
    serial = [attribute(model, batch, options=options) for batch in batches]

    def wrong(first: int) -> int:
        order = [(first + call) % len(batches) for call in range(50)]
        return sum(not same(attribute(model, batches[index], options=options), serial[index]) for index in order)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(8))) == 0


def test_several_targets_come_back_in_order_and_equal_single_calls() -> None:
    model, data = tune(tiny_vit(), "prompt", num_tokens=3), tiny_images(5)
    targets = [2, None, [4, 0, 2, 1, 3]]
    together = attribute_targets(model, data, targets, options={"integrated_gradients": {"n_steps": 3}}, batch_size=2)
    for one, found in zip(targets, together, strict=True):
        alone = attribute(model, data, targets=one, options={"integrated_gradients": {"n_steps": 3}}, batch_size=2)
        for name, maps in alone.items():
            np.testing.assert_allclose(found[name].values, maps.values, rtol=1e-6, atol=1e-9)
            assert found[name].targets.tolist() == maps.targets.tolist()
    for wrong in ([], "label"):
        with pytest.raises(InputError, match="expected a list of targets"):
            attribute_targets(model, data, wrong)


def test_mixed_precision_is_near_and_says_how_near() -> None:
    model, images = wrap(tiny_vit(dtype=torch.float32)), tiny_images().float()
    exact = attribute(model, images, targets=0, options={"integrated_gradients": {"n_steps": 8}})
    rough = attribute(model, images, targets=0, options={"integrated_gradients": {"n_steps": 8}}, precision="bf16")
    for name, found in rough.items():
        assert found.provenance["precision"] == "bf16" and found.provenance["tolerance"] > 1e-3
        assert exact[name].provenance["tolerance"] == 1e-5
        assert np.corrcoef(found.values.ravel(), exact[name].values.ravel())[0, 1] > 0.98
        assert not np.array_equal(found.values, exact[name].values) and found.logits.dtype == np.float32
    with pytest.raises(InputError, match="expected precision in .*got 'fp16'"):
        attribute(model, images, precision="fp16")


def test_the_public_names_are_there_and_import_on_first_use() -> None:
    assert explain.attribute is attribute and explain.wrap is wrap and explain.tune is tune
    assert set(explain.__all__) == set(dir(explain))
    with pytest.raises(AttributeError, match="module 'explain' has no attribute 'attribut'; it offers .*attribute"):
        _ = explain.attribut
    assert all(isinstance(name, str) for name in explain.__all__) and issubclass(explain.ExplainError, ExplainError)
