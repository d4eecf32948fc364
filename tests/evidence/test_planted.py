"""Planted cues: equal by construction, the same pixels for both models, and statuses that say what was shown."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from tiny_vits import tiny_images, tiny_vit
from typer.testing import CliRunner

import explain.evidence.planted as planted_file
import explain.training.train as train_file
from explain.backbone import InputTransform
from explain.cli_planted import planted
from explain.data.base import Dataset
from explain.data.split import make_split
from explain.errors import InputError, IntegrityError, UnknownNameError
from explain.evidence.borrowed import borrow, trained_folder
from explain.evidence.cues import (
    BRIGHT,
    CUES,
    DARK,
    CuedPictures,
    cue_facts,
    draw_places,
    draw_states,
    draw_tile,
    make_pictures,
    tile_patches,
)
from explain.evidence.occlusion import occlusion_losses
from explain.evidence.planted import CONTROLS, PLANTED, Gate, PlantedResult, cue_shares, gate_of, planted_cues, trust_of
from explain.files import write_json
from explain.passes import Passes
from explain.training.machine import Machine
from explain.training.pair import MatchedPair
from explain.wrapping import wrap

COUNTS = {"train": 16, "val": 8, "test": 12}
FIELDS = {"backbone": "random:test_vit", "image_size": 64, "epochs": 1}
RECIPE = PLANTED.model_copy(update=FIELDS | {"arms": {"vpt": PLANTED.arms["vpt"]}})
METHODS = ("grad_cam", "attention_rollout")


def drawn(data: Dataset, folder: Path, seed: int = 0) -> CuedPictures:
    return make_pictures(data, make_split(data, seed=0), folder, transform=InputTransform((64, 64)), patch_px=8,
                         counts=COUNTS, seed=seed, progress=lambda done, total: None)  # fmt: skip


@pytest.fixture(scope="module")
def pictured(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> CuedPictures:
    return drawn(pictures, tmp_path_factory.mktemp("cues") / "pictures")


def read(pictured: CuedPictures, name: str) -> np.ndarray:
    return np.asarray(Image.open(pictured.folder / name))


@pytest.mark.parametrize("side_px", [8, 14, 15, 28, 56])
def test_all_tiles_have_the_same_grey_levels_equally_often(side_px: int) -> None:
    tiles = [draw_tile(cue, state, side_px) for cue in CUES for state in (0, 1)]
    half = side_px**2 // 2
    for tile in tiles:
        assert tile.shape == (side_px, side_px) and (tile == BRIGHT).sum() == half
        assert (tile == DARK).sum() == side_px**2 - half
    assert DARK > 0  # black would vanish where a map starts from black
    assert len({tile.tobytes() for tile in tiles}) == 4


@pytest.mark.parametrize("cue", CUES)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_flip_leaves_a_tile_in_its_state(cue: str, axis: int) -> None:
    for state in (0, 1):
        flipped = np.flip(draw_tile(cue, state, 28), axis)  # type: ignore[arg-type]
        alike = [(flipped == draw_tile(cue, other, 28)).mean() for other in (state, 1 - state)]  # type: ignore[arg-type]
        assert alike[0] > 0.95 and alike[1] < 0.8


def test_the_states_of_a_cue_are_what_their_names_say() -> None:
    plus, cross, horizontal, vertical = (draw_tile(cue, state, 28) for cue in CUES for state in (0, 1))
    assert (plus[:, 13] == BRIGHT).all() and (plus[13] == BRIGHT).all() and plus[2, 2] == DARK
    assert (np.diag(cross) == BRIGHT).all() and cross[13, 2] == DARK
    assert (horizontal == horizontal[:, :1]).all() and (vertical == vertical[:1]).all()


@pytest.mark.parametrize("grid", [(3, 3), (3, 4), (8, 8), (16, 9)])
def test_cues_never_touch_and_lie_anywhere(grid: tuple[int, int]) -> None:
    rng, tile = np.random.default_rng(0), tile_patches(grid)
    seen = np.zeros(grid, dtype=int)
    for _ in range(300):
        covered = np.zeros(grid, dtype=int)
        for row, column in draw_places(rng, grid):
            assert 0 <= row <= grid[0] - tile and 0 <= column <= grid[1] - tile
            covered[row : row + tile, column : column + tile] += 1
        assert covered.max() == 1 and covered.sum() == 2 * tile**2
        seen += covered
    corners = seen[0, 0], seen[0, -1], seen[-1, 0], seen[-1, -1]
    assert min(corners) > 0 and (seen > 0).mean() > 0.85


def test_a_grid_without_room_for_two_cues_is_refused() -> None:
    with pytest.raises(InputError, match="larger images"):
        draw_places(np.random.default_rng(0), (2, 2))


def test_states_are_balanced_within_every_class_and_independent() -> None:
    labels = np.repeat([0, 1, 2], [40, 7, 21])
    states = draw_states(labels, np.random.default_rng(3))
    for label in (0, 1, 2):
        both = states[labels == label] @ (2, 1)
        counts = np.bincount(both, minlength=4)
        assert counts.max() - counts.min() <= 1
    assert np.corrcoef(states[labels == 0].T)[0, 1] == 0


def test_both_label_sets_have_the_same_pixels_and_their_own_labels(pictured: CuedPictures) -> None:
    a, b = (pictured.labelled(cue) for cue in CUES)
    assert [(s.id, s.path, s.sha256) for s in a.samples] == [(s.id, s.path, s.sha256) for s in b.samples]
    states = {s.id: (s.label, t.label) for s, t in zip(a.samples, b.samples, strict=True)}
    assert states == {picture.id: picture.states for picture in pictured.content.pictures}
    assert len(set(states.values())) == 4 and a.class_names != b.class_names
    assert {part: len(ids) for part, ids in a.parts.items()} == COUNTS


def test_a_picture_is_its_image_but_for_the_two_tiles(pictured: CuedPictures, pictures: Dataset) -> None:
    for picture in pictured.content.pictures[::5]:
        pixels, mask_a, mask_b = (read(pictured, path + picture.id) for path in ("", "mask_a/", "mask_b/"))
        below = np.asarray(Image.open(pictures.by_id[picture.made_of].path))
        outside = (mask_a == 0) & (mask_b == 0)
        assert (pixels[outside] == below[outside]).all()
        for cue, mask, state in zip(CUES, (mask_a, mask_b), picture.states, strict=True):
            assert (pixels[mask > 0].reshape(16, 16, 3) == draw_tile(cue, state, 16)[..., None]).all()
            region = pictured.regions([picture.id], cue)[0]
            assert (np.kron(region, np.ones((8, 8), dtype=bool)) == (mask > 0)).all()


def test_no_image_lies_below_pictures_of_two_parts(pictured: CuedPictures) -> None:
    below = {part: {p.made_of for p in pictured.content.pictures if p.part == part} for part in COUNTS}
    assert not below["train"] & below["test"] and not below["train"] & below["val"] and not below["val"] & below["test"]


def test_cues_are_equally_bright_and_rich_in_contrast_in_every_picture(pictured: CuedPictures) -> None:
    ids = [picture.id for picture in pictured.content.pictures]
    pixels = np.stack([read(pictured, name) for name in ids])
    a, b = (cue_facts(pixels, pictured.regions(ids, cue), cue, 8) for cue in CUES)
    assert (a.side_px, a.area) == (b.side_px, b.area) == (16, 4 / 64)
    assert a.mean == pytest.approx(b.mean, abs=1e-6) == pytest.approx((DARK + BRIGHT) / 510, abs=1e-6)
    assert a.contrast == pytest.approx(b.contrast, abs=1e-6) == pytest.approx((BRIGHT - DARK) / 510, abs=1e-6)
    assert 0.6 < a.edges / b.edges < 1.6


def test_pictures_are_drawn_once_and_others_are_refused(pictured: CuedPictures, pictures: Dataset) -> None:
    before = {path: path.stat().st_mtime_ns for path in pictured.folder.rglob("*.png")}
    assert drawn(pictures, pictured.folder).content == pictured.content
    assert {path: path.stat().st_mtime_ns for path in pictured.folder.rglob("*.png")} == before
    with pytest.raises(InputError, match="other data, size, number or seed"):
        drawn(pictures, pictured.folder, seed=1)


def test_a_share_counts_what_is_positive_in_the_two_regions_only() -> None:
    a, b = np.zeros((3, 2, 3), dtype=bool), np.zeros((3, 2, 3), dtype=bool)
    a[:, 0, 0], b[:, 1, 2] = True, True
    maps = np.full((3, 2, 3), np.nan)
    maps[:, 0, 0], maps[:, 1, 2] = (3, -2, -1), (1, 5, 0)
    shares = cue_shares(maps, a, b)
    assert shares[0] == 0.75 and shares[1] == 0 and np.isnan(shares[2])


def regions_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.zeros((count, 4, 4), dtype=bool), np.zeros((count, 4, 4), dtype=bool)
    a[:, 0, :2], b[:, 3, :2] = True, True
    return a, b


def gate(arm: str = "vpt", *, good: bool = True) -> Gate:
    a, b = regions_of(40)
    under_a, under_b = (a + 0.1 * b, b + 0.1 * a) if good else (a + 0.4 * b, b + 0.4 * a)
    return gate_of(arm, cue_shares(under_a, a, b), cue_shares(under_b, a, b), accuracies=(1.0, 0.98), dropped=2)


def test_the_gate_needs_a_difference_of_six_tenths() -> None:
    assert gate().passed and gate().difference == pytest.approx(1 / 1.1 - 0.1 / 1.1)
    assert not gate(good=False).passed and gate(good=False).difference == pytest.approx(0.6 / 1.4)


def test_the_gate_needs_enough_pictures() -> None:
    few = gate_of("ft", np.ones(9), np.zeros(9), accuracies=(0.3, 0.3), dropped=91)
    assert few.difference == 1 and not few.passed
    blank = np.where(np.arange(40) < 15, 1, np.nan)
    assert not gate_of("ft", blank, np.zeros(40), accuracies=(1.0, 1.0), dropped=60).passed
    none = gate_of("ft", np.ones(0), np.zeros(0), accuracies=(0.0, 0.3), dropped=100)
    assert none.difference is None and not none.passed


def test_a_perfect_explainer_passes_and_a_random_map_fails() -> None:
    a, b = regions_of(40)
    perfect = trust_of("perfect", cue_shares(1.0 * a, a, b), cue_shares(1.0 * b, a, b), gate())
    assert (perfect.status, perfect.difference, perfect.low, perfect.blank) == ("PASSED", 1, 1, 0)
    shares = cue_shares(np.random.default_rng(0).random((40, 4, 4)), a, b)
    random = trust_of("random", shares, shares, gate())
    assert (random.status, random.difference, random.low, random.high) == ("FAILED", 0, 0, 0)
    noise = [cue_shares(np.random.default_rng(seed).random((40, 4, 4)), a, b) for seed in (1, 2)]
    assert trust_of("noise", noise[0], noise[1], gate()).status == "FAILED"


def test_a_difference_whose_interval_holds_zero_fails() -> None:
    row = trust_of("weak", np.tile([0.9, 0.14], 20), np.tile([0.1, 0.9], 20), gate())
    assert row.low is not None and row.difference is not None
    assert row.low < 0 < row.difference and row.status == "FAILED"


def test_a_map_of_the_wrong_sign_fails() -> None:
    assert trust_of("wrong", np.full(20, 0.3), np.full(20, 0.6), gate()).status == "FAILED"


def test_without_the_gate_nothing_is_tested() -> None:
    row = trust_of("perfect", np.ones(40), np.zeros(40), gate(good=False))
    assert (row.status, row.difference) == ("NOT TESTED", 1)


def test_blank_maps_are_counted_and_left_out() -> None:
    a = np.array([1, 1, np.nan, 1.0])
    b = np.array([0, 0, 0, np.nan])
    row = trust_of("some", a, b, gate())
    assert (row.images, row.blank, row.difference) == (2, 2, 1)
    few = np.where(np.arange(40) < 15, 1, np.nan)
    assert trust_of("mostly blank", few, np.zeros(40), gate()).status == "FAILED"
    every = trust_of("all", np.full(4, np.nan), b, gate())
    assert (every.images, every.blank, every.difference, every.status) == (0, 4, None, "FAILED")


def test_occlusion_is_the_logit_lost_with_a_region() -> None:
    model, images = wrap(tiny_vit(dtype=torch.float32)), tiny_images(2).float()
    regions = np.zeros((2, 2, 3, 4), dtype=bool)
    regions[0, 0, 0, 1] = regions[0, 0, 2, 3] = regions[1, 0, 1, 2] = regions[0, 1, 1, 1:3] = True
    labels, state = np.array([3, 1]), {name: value.clone() for name, value in model.state_dict().items()}
    found = occlusion_losses(model, images, labels, regions, Passes())
    assert found[1, 1] == pytest.approx(0, abs=1e-5)  # nothing was taken away
    for number, one in np.ndindex(2, 2):
        without = images[number].clone()
        for row, column in np.argwhere(regions[number, one]):
            for channel, whole in zip(without, images[number], strict=True):
                channel[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = whole.mean()
        with torch.no_grad():
            scores = model(torch.stack([images[number], without]))[:, labels[number]]
        assert found[number, one] == pytest.approx(float(scores[0] - scores[1]), abs=1e-5)
    assert abs(found[0]).min() > 1e-3
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.fixture(scope="module")
def tested(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, PlantedResult]]:
    """One arm on an untrained backbone: everything runs, nothing is learnt."""
    folder = tmp_path_factory.mktemp("planted") / "planted"
    before = torch.get_rng_state()
    yield folder, run(pictures, folder)
    assert torch.equal(torch.get_rng_state(), before)


def run(data: Dataset, folder: Path, methods: tuple[str, ...] = METHODS, seed: int = 0) -> PlantedResult:
    return planted_cues(data, RECIPE, out=folder, methods=methods, train_images=8, test_images=12, seed=seed,
                        machine=Machine(device="cpu"))  # fmt: skip


def test_a_result_reads_back_equal(tested: tuple[Path, PlantedResult]) -> None:
    folder, result = tested
    assert PlantedResult.load(folder) == result
    assert [row.method for row in result.trusts] == [*METHODS, *CONTROLS]
    gate = result.gates[0]
    assert gate.images + gate.blank + gate.dropped == result.test_images == 12
    assert result.status("vpt", "grad_cam") == result.trusts[0].status
    assert result.status("vpt", "legrad") == "NOT TESTED" and result.trust("ft", "grad_cam") is None


def test_controls_tell_no_two_models_apart(tested: tuple[Path, PlantedResult]) -> None:
    rows = [row for row in tested[1].trusts if row.method in CONTROLS and row.images]
    assert len(rows) == 3
    assert all((row.difference, row.low, row.high) == (0, 0, 0) and row.status != "PASSED" for row in rows)


def test_the_second_model_is_trained_at_the_rate_of_the_first(tested: tuple[Path, PlantedResult]) -> None:
    assert (tested[0] / "cue_a/vpt/search.log").is_file() and not (tested[0] / "cue_b/vpt/search.log").exists()
    assert tested[1].learning_rates == {"vpt": 5e-3}


def test_a_second_call_trains_and_explains_nothing_again(
    pictures: Dataset, tested: tuple[Path, PlantedResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("this was finished")

    folder, result = tested
    (folder / "planted.json").unlink()
    for file, name in ((train_file, "fit"), (planted_file, "attribute"), (planted_file, "occlusion_losses")):
        monkeypatch.setattr(file, name, refuse)
    assert run(pictures, folder) == result == PlantedResult.load(folder)
    with pytest.raises(AssertionError, match="this was finished"):
        run(pictures, folder, methods=("grad_cam", "raw_attention"))


def test_another_seed_in_the_same_folder_is_refused(pictures: Dataset, tested: tuple[Path, PlantedResult]) -> None:
    with pytest.raises(InputError, match="choose another output folder"):
        run(pictures, tested[0], seed=1)


def test_too_few_pictures_are_refused_before_anything_is_done(pictures: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="10 test images or more"):
        planted_cues(pictures, RECIPE, out=tmp_path / "few", test_images=9)
    assert not (tmp_path / "few").exists()


def test_a_record_of_another_version_is_told(tmp_path: Path) -> None:
    write_json(tmp_path / "planted.json", {"format": 99})
    with pytest.raises(IntegrityError, match="no result of this version"):
        PlantedResult.load(tmp_path)


def test_the_command_prints_every_row_in_words(pictures: Dataset, tested: tuple[Path, PlantedResult]) -> None:
    app, (folder, result) = typer.Typer(), tested
    app.command()(planted)
    fields = [part for name, value in FIELDS.items() for part in ("--set", f"{name}={value}")]
    methods = [part for name in METHODS for part in ("--method", name)]
    done = CliRunner().invoke(app, [str(pictures.root), "--out", str(folder), "--arm", "vpt", "--train-images", "8",
                                    "--test-images", "12", "--device", "cpu", *fields, *methods],
                              catch_exceptions=False)  # fmt: skip
    assert done.exit_code == 0
    text = " ".join(done.output.split())
    assert all(words in text for words in ("GradCAM", "Attention rollout", "Edges (Sobel) (control)", "How to read it"))
    assert text.count(result.trusts[0].status) >= 5
    assert f"made of {result.distinct_test_images} images" in text


def test_a_pair_lends_its_setting(fake_pair: MatchedPair) -> None:
    lent = borrow(fake_pair.path)
    manifest = fake_pair.ft.manifest
    assert list(lent.recipe.arms) == ["ft", "vpt"] or list(lent.recipe.arms) == ["vpt", "ft"]
    assert (lent.recipe.backbone, lent.recipe.image_size) == (manifest.backbone.spec, manifest.image_size)
    assert lent.recipe.arms["ft"].learning_rates == (manifest.learning_rate,)
    assert lent.recipe.arms["vpt"].options == fake_pair.vpt.manifest.tuning_options
    assert (lent.data.fingerprint, lent.split) == (fake_pair.data.fingerprint, fake_pair.split)
    assert list(borrow(fake_pair.path, ["linear"]).recipe.arms) == ["linear"]
    with pytest.raises(UnknownNameError, match="lora"):
        borrow(fake_pair.path, ["lora"])


def test_trained_folders_are_told_from_images(pictures: Dataset, fake_pair: MatchedPair, tmp_path: Path) -> None:
    assert trained_folder(fake_pair.path) == fake_pair.path
    assert trained_folder(pictures.root) is None and trained_folder("synthetic:count:20") is None
    for seed in (10, 2):
        write_json(tmp_path / f"seed{seed}/vpt/manifest.json", {})
    assert trained_folder(tmp_path) == tmp_path / "seed2"
