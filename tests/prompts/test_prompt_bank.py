"""The bank: many prompts on one backbone answer as each one's own model does, and share its memory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prompt_runs import make_run
from torch import Tensor

import explain
from explain.backbone import load_backbone
from explain.data.base import Dataset
from explain.errors import InputError, IntegrityError, NonFiniteError, UnknownNameError
from explain.model import TunedModel
from explain.prompts.bank import PromptBank
from explain.prompts.card import check_fits
from explain.prompts.store import PromptStore
from explain.training.run import Run

BACKBONE = "random:vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def bank(filled: PromptStore) -> PromptBank:
    return PromptBank(BACKBONE, filled, device="cpu")


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def own(runs: dict[str, Run], name: str, images: Tensor) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(runs[name].model(images).numpy())


@pytest.mark.parametrize("name", ["deep", "shallow", "longer", "linear", "bitfit", "three"])
def test_one_prompt_answers_as_its_own_model(
    bank: PromptBank, runs: dict[str, Run], images: Tensor, name: str
) -> None:
    answers = bank.predict(images, prompt=name, batch_size=3)
    expected = own(runs, name, images)
    assert np.abs(answers.logits - expected).max() < 1e-5
    assert answers.classes.tolist() == expected.argmax(1).tolist()
    assert answers.class_names == (runs[name].manifest.class_names,) * 4
    assert answers.versions == (bank.store.resolve(name).id,) * 4


@pytest.mark.parametrize("pair", [("deep", "deep_b"), ("shallow", "shallow_b")])
def test_prompts_of_one_length_mix_in_one_forward(
    bank: PromptBank, runs: dict[str, Run], images: Tensor, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = [pair[0], pair[1], pair[1], pair[0]]
    expected = {name: own(runs, name, images) for name in pair}
    batches = []
    forward = TunedModel.forward
    monkeypatch.setattr(TunedModel, "forward", lambda self, x: batches.append(len(x)) or forward(self, x))
    answers = bank.predict(images, prompt=mixed)
    assert batches == [4]
    for row, name in enumerate(mixed):
        assert np.abs(answers.logits[row] - expected[name][row]).max() < 1e-5
    assert np.abs(expected[pair[0]] - expected[pair[1]]).max() > 0.1  # a mix-up would show


def test_prompts_of_every_shape_and_class_count_in_one_call(
    bank: PromptBank, runs: dict[str, Run], images: Tensor
) -> None:
    mixed = ["three", "deep", "longer", "shallow", "linear", "bitfit", "deep_b", "three"]
    many = torch.cat((images, images + 0.5))
    answers = bank.predict(many, prompt=mixed, batch_size=2)
    for row, name in enumerate(mixed):
        classes = len(runs[name].manifest.class_names)
        assert np.abs(answers.logits[row, :classes] - own(runs, name, many[row : row + 1])[0]).max() < 1e-5
        assert (answers.logits[row, classes:] == -np.inf).all() and (answers.probabilities[row, classes:] == 0).all()
    assert np.allclose(answers.probabilities.sum(1), 1, atol=1e-6)
    assert answers.names == tuple(names[index] for names, index in
                                  zip(answers.class_names, answers.classes, strict=True))  # fmt: skip


def test_every_kind_of_image_gives_the_same_answers(bank: PromptBank, pictures: Dataset) -> None:
    paths = [sample.path for sample in pictures.samples[:3]]
    opened = [Image.open(path).convert("RGB") for path in paths]
    arrays = [np.asarray(image) for image in opened]
    tensor = explain.engine.load_images(paths, bank.model("deep").transform)
    first = bank.predict(paths, prompt="deep").logits
    for other in (opened, arrays, tensor, pictures.select([sample.id for sample in pictures.samples[:3]])):
        assert (bank.predict(other, prompt="deep").logits == first).all()


def test_models_share_the_backbone_and_own_only_what_was_trained(filled: PromptStore) -> None:
    bank = PromptBank(BACKBONE, filled, device="cpu")
    models = {name: bank.model(name) for name in ("deep", "deep_b", "shallow", "linear", "bitfit")}
    where = {name: {id: value.numel() * 4 for value in model.parameters() if (id := value.data_ptr())}
             for name, model in models.items()}  # fmt: skip
    shared = set.intersection(*(set(part) for part in where.values()))
    total = sum(where["deep"].values())
    for name, model in models.items():
        frozen = {value.data_ptr() for value in model.parameters() if not value.requires_grad}
        trained = sum(value.numel() * 4 for value in model.trained_state().values())
        if name != "bitfit":
            others = set(where["deep_b"]) if name != "deep_b" else set(where["deep"])
            assert sum(size for place, size in where[name].items() if place not in others) == trained < total / 100
        assert shared <= frozen
    assert sum(where["deep"][place] for place in shared) > 0.95 * total


def test_loading_a_prompt_leaves_the_backbone_as_it_was(filled: PromptStore, images: Tensor) -> None:
    bank = PromptBank(BACKBONE, filled, device="cpu")
    before = bank.predict(images, prompt="deep").logits
    bank.predict(images, prompt="bitfit")
    bank.model("bitfit")
    assert (bank.predict(images, prompt="deep").logits == before).all()


def test_an_alias_that_moved_is_in_force_at_the_next_call(
    store: PromptStore, runs: dict[str, Run], images: Tensor
) -> None:
    bank = PromptBank(BACKBONE, store, device="cpu")
    for version, name in (("v1", "deep"), ("v2", "deep_b"), ("v1", "deep")):
        store.alias(f"line-3@{version}", "staging")
        answers = bank.predict(images, prompt="line-3@staging")
        assert np.abs(answers.logits - own(runs, name, images)).max() < 1e-5


def test_a_model_from_the_bank_can_be_explained(bank: PromptBank, images: Tensor, runs: dict[str, Run]) -> None:
    found = explain.attribute(bank.model("deep"), images[:1], methods="grad_cam")["grad_cam"]
    expected = explain.attribute(runs["deep"].model, images[:1], methods="grad_cam")["grad_cam"]
    assert np.abs(found.values - expected.values).max() < 1e-5


def test_threads_and_the_random_state_are_left_alone(filled: PromptStore, images: Tensor) -> None:
    bank = PromptBank(BACKBONE, filled, device="cpu")
    before = torch.get_rng_state()
    mixed = ["deep", "deep_b", "linear", "deep"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: bank.predict(images, prompt=mixed).logits, range(8)))
    assert all((logits == found[0]).all() for logits in found)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("backbone", "told"), [
    ("random:vit_small_patch16_224", "sha256: expected .*width: expected 192, got 384"),
    ("random:deit_tiny_patch16_224", "mean: expected .*std: expected "),  # the same weights, made for other pixels
])  # fmt: skip
def test_another_backbone_is_refused(filled: PromptStore, images: Tensor, backbone: str, told: str) -> None:
    bank = PromptBank(backbone, filled, device="cpu")
    with pytest.raises(IntegrityError, match=f"trained on another backbone.*{told}.*Use 'random:vit_tiny"):
        bank.predict(images, prompt="deep")


@pytest.mark.parametrize(("field", "value", "told"), [
    ("depth", 24, "depth: expected 24, got 12"), ("width", 384, "width: expected 384, got 192"),
    ("patch_size", (8, 8), r"patch size: expected \(8, 8\), got \(16, 16\)"),
    ("backbone.mean", (0.0, 0.0, 0.0), r"mean: expected \(0.0, 0.0, 0.0\), got"),
    ("backbone.std", (1.0, 1.0, 1.0), r"std: expected \(1.0, 1.0, 1.0\), got"),
    ("backbone.sha256", "0" * 64, "sha256: expected 0000"),
    ("backbone.interpolation", "bilinear", "interpolation: expected bilinear"),
])  # fmt: skip
def test_each_way_a_backbone_can_differ_is_told(filled: PromptStore, field: str, value: object, told: str) -> None:
    vit, backbone = load_backbone(BACKBONE)
    card = filled.get("deep").card
    check_fits(card, vit, backbone)
    part, _, inner = field.rpartition(".")
    changed = {inner: value} if not part else {part: card.backbone.model_copy(update={inner: value})}
    with pytest.raises(IntegrityError, match=told) as refused:
        check_fits(card.model_copy(update=changed), vit, backbone)
    assert str(refused.value).count("expected") == 1


def test_images_of_another_size_are_refused(bank: PromptBank) -> None:
    with pytest.raises(InputError, match="64x64 pixels, got 80x80"):
        bank.predict(torch.zeros(1, 3, 80, 80), prompt="deep")


def test_changed_weights_are_not_loaded(store: PromptStore, images: Tensor) -> None:
    path = store.get("deep").folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(IntegrityError, match="recorded with hash"):
        PromptBank(BACKBONE, store, device="cpu").predict(images, prompt="deep")


def test_wrong_calls_say_what_to_do(bank: PromptBank, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one per image: 4, got 2"):
        bank.predict(images, prompt=["deep", "deep"])
    with pytest.raises(InputError, match="put it into a list"):
        bank.predict(tmp_path / "a.png", prompt="deep")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one image"):
        bank.predict([], prompt="deep")
    with pytest.raises(InputError, match="batch_size"):
        bank.predict(images, prompt="deep", batch_size=0)
    with pytest.raises(UnknownNameError, match="known"):
        bank.predict(images, prompt="nobody")
    with pytest.raises(InputError, match="NaN"):
        bank.predict(images * float("nan"), prompt="deep")


def test_infinite_logits_are_an_error(store: PromptStore, runs: dict[str, Run], images: Tensor, tmp_path: Path) -> None:
    steep = make_run(runs["deep"], tmp_path / "steep", "linear", head_scale=1e39)
    store.add(steep, name="steep", owner="q", purpose="x")
    with pytest.raises(NonFiniteError, match=r"image\(s\) \[1, 3\]"):
        PromptBank(BACKBONE, store, device="cpu").predict(images, prompt=["deep", "steep", "deep", "steep"])


def test_the_bank_is_part_of_the_public_api(filled: PromptStore) -> None:
    assert explain.PromptBank is PromptBank and explain.PromptStore is PromptStore
