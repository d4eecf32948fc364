import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import explain
from explain import MapArchive, MatchedPair
from explain.archive.explained import StoredMap
from explain.data.base import Dataset
from explain.errors import InputError
from explain.export.base import export
from explain.export.png import NAME_BYTES, Png, new_file, readable
from explain.methods.base import METHODS
from explain.render.heatmap import colour, overlay, resize, scale_for


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def picture(archive: MapArchive, name: str) -> np.ndarray:
    return pixels(archive[name].path)


def test_each_map_lies_over_its_image(archive: MapArchive, tmp_path: Path) -> None:
    out = export(archive, tmp_path / "out", format="png")
    assert len(list(out.rglob("*.png"))) == 24 * 6
    for method, stored in archive["right/03.png"]["ft"].items():
        signed = METHODS[method].picture == "signed"
        expected = overlay(picture(archive, "right/03.png"), stored.on_grid, signed=signed)
        assert np.array_equal(pixels(out / f"right/03.png.ft.{method}.png"), expected)


def test_maps_in_pixels_are_drawn_so_when_asked(archive: MapArchive, tmp_path: Path) -> None:
    out = export(archive, tmp_path / "out", format="png", ids=["left/00.png"], grid=False, opacity=0.9)
    stored = archive["left/00.png"]["vpt"]["integrated_gradients"]
    expected = overlay(picture(archive, "left/00.png"), stored.values, 0.9, signed=True)
    assert np.array_equal(pixels(out / "left/00.png.vpt.integrated_gradients.png"), expected)


def test_a_plain_map_is_as_large_as_its_image(archive: MapArchive, tmp_path: Path) -> None:
    out = export(archive, tmp_path / "out", format="png", ids=["left/00.png"], plain=True)
    values = archive["left/00.png"]["vpt"]["attention_rollout"].values
    expected = colour(resize(values, (64, 64)), scale_for(values, False))
    assert np.array_equal(pixels(out / "left/00.png.vpt.attention_rollout.png"), expected)


def test_a_picture_says_what_it_shows(archive: MapArchive, tmp_path: Path) -> None:
    out = export(archive, tmp_path / "out", format="png", ids=["left/00.png"])
    text = Image.open(out / "left/00.png.vpt.grad_cam.png").text
    assert text["Title"] == "left/00.png"
    assert text["Description"].startswith("grad_cam of vpt for class 'left'; a map of 4x4, colours from 0 to 0.00")


def test_a_blank_map_shows_the_image_and_says_so() -> None:
    under = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    values = np.full((4, 4), -1, np.float32)
    stored = StoredMap("vpt", "grad_cam", values, values, 0, "fp16")
    drawn, text = Png()._draw(stored, (64, 96), Image.fromarray(under))
    assert text == "the map is blank"
    shown = np.asarray(drawn)
    assert np.array_equal(shown[:48], under[:48])
    assert not np.array_equal(shown[48:], under[48:])


def test_a_large_image_is_made_smaller(archive: MapArchive, tmp_path: Path) -> None:
    for options in ({}, {"plain": True}):
        out = export(archive, tmp_path / f"out{len(options)}", format="png", ids=["left/00.png"], longest=32, **options)
        assert pixels(out / "left/00.png.vpt.grad_cam.png").shape == (32, 32, 3)


def test_an_image_that_changed_or_went_away_is_not_drawn_under_its_old_maps(
    tiny_pair: MatchedPair, pictures: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(2):
        shutil.copy(pictures.samples[index].path, folder / f"{index}.png")
    made = explain.attribute_dataset(tiny_pair.path / "vpt", folder, out=tmp_path / "maps", methods="grad_cam")
    shutil.copy(pictures.samples[5].path, folder / "1.png")
    with pytest.raises(InputError, match=r"image '1.png' cannot be drawn: .*\(hash_mismatch\).*plain=true"):
        export(made, tmp_path / "out", format="png")
    (folder / "0.png").unlink()
    with pytest.raises(InputError, match=r"image '0.png' cannot be drawn: .*\(missing\)"):
        export(made, tmp_path / "out", format="png")
    assert not (tmp_path / "out").exists()
    assert len(list(export(made, tmp_path / "out", format="png", plain=True).iterdir())) == 2


def test_every_image_of_an_odd_name_has_its_own_picture(odd: MapArchive, tmp_path: Path) -> None:
    out = export(odd, tmp_path / "out", format="png")
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 22 * 2
    titles = [Image.open(path).text["Title"] for path in files]
    assert len(set(titles)) == 22
    assert all(unicodedata.category(character)[0] not in "CZ" or character == " " for path in files
               for character in str(path.relative_to(out)))  # fmt: skip
    assert (out / "織物/傷.vpt.grad_cam.png").is_file()


@pytest.mark.parametrize(
    "name", ["..", "../..", "/", "//", "", ".", "a/../../b", "\\\\server\\share", "C:", "~root", "a\0b", "a/./b", "x/"]
)
def test_no_name_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    place = (tmp_path / f"{readable(name)}.png").resolve()
    assert place.is_relative_to(tmp_path) and place != tmp_path
    assert not set(readable(name).split("/")) & {"", ".", ".."}
    assert readable(name) != name


@pytest.mark.parametrize("name", ["left/00.png", "織物 1/傷.jpg", "=cmd()", "a.b-c_d (1).tif"])
def test_an_ordinary_name_is_kept(name: str) -> None:
    assert readable(name) == name


def test_long_names_are_cut_and_stay_different() -> None:
    names = [readable("日" * 5_000 + end) for end in ("a", "b")]
    assert names[0] != names[1]
    assert all(len(name.encode()) <= NAME_BYTES for name in names)


def test_two_names_that_a_file_system_takes_for_one_get_two_files(tmp_path: Path) -> None:
    (tmp_path / "case.png").write_bytes(b"first")  # as if it were "CASE", where case does not count
    (tmp_path / "folder").write_bytes(b"a file")
    for name in ("case", "folder/inside"):
        with new_file(tmp_path, name, ".png") as stream:
            stream.write(b"second")
    assert (tmp_path / "case.png").read_bytes() == b"first"
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"a file", b"first", b"second", b"second"]


@pytest.mark.parametrize("options", [{"opacity": 2}, {"opacity": "half"}, {"longest": 0}, {"plain": 1}])
def test_options_out_of_range_are_refused(options: dict[str, object], archive: MapArchive, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        export(archive, tmp_path / "out", format="png", **options)
