import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explain.data import reading
from explain.data.base import FORMATS, Dataset, load_data
from explain.data.reading import check_images
from explain.errors import DatasetError
from explain.files import read_json, write_json

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"


def picture(seed: int = 0, kind: str = "PNG") -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def contract_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, int], str]:
    files = {
        f"{name}/{n}.jpg": picture(len(name) + n, "JPEG") for name in ("dogs", "kittens") for n in range(3)
    }
    fill(folder / "animals", files | {"dogs/cut.jpg": picture(5, "JPEG")[:300]})
    return str(folder / "animals"), {"dogs": 3, "kittens": 3}, "cut.jpg"


def ids(dataset: Dataset) -> list[str]:
    return [sample.id for sample in dataset.samples]


def reasons(dataset: Dataset) -> dict[str, str]:
    return {item.path.relative_to(dataset.root).as_posix(): item.reason for item in dataset.rejected}


def test_classes_are_the_sub_folders_in_sorted_order(tmp_path):
    fill(tmp_path, {"dog/1.png": picture(1), "cat/1.png": picture(2), "ape/deep/er/1.png": picture(3)})
    dataset = load_data(tmp_path)
    assert dataset.class_names == ("ape", "cat", "dog")
    assert ids(dataset) == ["ape/deep/er/1.png", "cat/1.png", "dog/1.png"]
    assert [sample.label for sample in dataset.samples] == [0, 1, 2]
    assert dataset.name == tmp_path.name


def test_sample_data_of_the_project_loads_as_a_folder():
    dataset = load_data(SAMPLE_DATA)
    assert dataset.counts() == {"global": 4, "local": 4, "nominal": 4}
    assert dataset.rejected == ()


def test_good_images_are_all_used_beside_every_kind_of_bad_file(tmp_path):
    whole = picture(5, "JPEG")
    fill(
        tmp_path,
        {
            "a/good.png": picture(1),
            "a/wrong_suffix.jpg": picture(2),
            "A/UPPER.PNG": picture(3),
            "A/no_suffix": picture(4),
            "a/empty.jpg": b"",
            "a/text.jpg": b"not a picture",
            "a/drawing.svg": b"<svg/>",
            "a/cut.jpg": whole[: len(whole) // 2],
            "a/notes.txt": b"notes",
            "a/Thumbs.db": b"\xd0\xcf\x11\xe0",
            "a/.hidden.png": picture(6),
            "a/.cache/x.png": picture(7),
            "loose.png": picture(8),
            "README.md": b"# about",
        },
    )
    (tmp_path / "a/folder.png").mkdir()
    os.mkfifo(tmp_path / "a/pipe.jpg")
    os.mkfifo(tmp_path / "a/pipe")
    (tmp_path / "a/loop.png").symlink_to("loop.png")
    (tmp_path / "loop").symlink_to("loop")
    dataset = load_data(tmp_path)
    assert ids(dataset) == ["A/UPPER.PNG", "A/no_suffix", "a/good.png", "a/wrong_suffix.jpg"]
    assert reasons(dataset) == {
        "loose.png": "no_class",
        "a/cut.jpg": "truncated",
        "a/drawing.svg": "unsupported_format",
        "a/empty.jpg": "empty",
        "a/folder.png": "not_a_file",
        "a/loop.png": "unreadable",
        "a/pipe.jpg": "not_a_file",
        "a/text.jpg": "unsupported_format",
    }


def test_truncated_jpeg_is_rejected_by_name(tmp_path):
    fill(tmp_path, {"a/cut.jpg": picture(1, "JPEG")[:-300], "a/1.png": picture(), "b/1.png": picture(2)})
    dataset = load_data(tmp_path)
    assert [(item.path.name, item.reason) for item in dataset.rejected] == [("cut.jpg", "truncated")]


def test_links_out_of_the_folder_and_links_to_folders_are_listed_and_not_followed(tmp_path):
    outside = fill(tmp_path / "outside", {"1.png": picture(1)})
    root = fill(tmp_path / "root", {"a/1.png": picture(2), "b/1.png": picture(3)})
    (root / "a/escape.png").symlink_to(outside / "1.png")
    (root / "a/inside.png").symlink_to("../b/1.png")
    (root / "a/everything").symlink_to(outside)
    (root / "c").symlink_to(outside)
    dataset = load_data(root)
    assert ids(dataset) == ["a/1.png", "a/inside.png", "b/1.png"]
    assert reasons(dataset) == {
        "c": "linked_folder",
        "a/everything": "linked_folder",
        "a/escape.png": "outside_root",
    }


def test_names_of_every_kind_give_distinct_printable_ids(tmp_path):
    names = [
        "caf\u00e9.png", "cafe\u0301.png", "😀.png", "evil\u202egnp.png", "line\nbreak.png", "-rf.png",
        "%0A.png", "a" * 251 + ".png", os.fsdecode(b"latin\xe9.png"), "<img src=x>.png", "=cmd().png",
    ]  # fmt: skip
    fill(tmp_path, {f"a/{name}": picture(seed) for seed, name in enumerate(names)} | {"b/1.png": picture(99)})
    dataset = load_data(tmp_path)
    assert len(set(ids(dataset))) == len(names) + 1
    assert dataset.rejected == ()
    assert "a/line%0Abreak.png" in ids(dataset)
    assert "a/latin%E9.png" in ids(dataset)
    assert not any(character in "".join(ids(dataset)) for character in "\n\u202e")


def test_manifest_with_unprintable_paths_survives_a_json_file(tmp_path):
    bad = os.fsdecode(b"broken\xff.png")
    files = {f"a/{bad}": b"", "a/1.png": picture(), "b\n/1.png": picture(2)}
    root = fill(tmp_path / os.fsdecode(b"root\xe9"), files)
    dataset = load_data(root)
    write_json(tmp_path / "manifest.json", dataset.manifest())
    again = Dataset.from_manifest(read_json(tmp_path / "manifest.json"))
    assert again == dataset
    assert again.samples[0].path.is_file()
    assert json.dumps(dataset.manifest(), ensure_ascii=False).encode("utf-8")


def test_duplicates_by_content_are_both_kept_with_one_hash(tmp_path):
    fill(tmp_path, {"a/1.png": picture(), "a/2.png": picture(), "b/1.png": picture(2)})
    dataset = load_data(tmp_path)
    assert len(dataset) == 3
    assert len({sample.sha256 for sample in dataset.samples}) == 2


def test_flags_of_decoding_travel_with_the_sample(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGBA", (16, 16), (1, 2, 3, 0)).save(buffer, "PNG")
    fill(tmp_path, {"a/1.png": buffer.getvalue(), "b/1.png": picture()})
    assert load_data(tmp_path).samples[0].flags == ("alpha_composited",)


def test_progress_counts_up_in_order_and_ends_at_the_total(tmp_path):
    fill(tmp_path, {f"{label}/{n}.png": picture(n) for label in "ab" for n in range(5)} | {"a/bad.png": b"x"})
    seen: list[tuple[int, int]] = []
    load_data(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 11) for n in range(1, 12)]


def test_an_interrupt_stops_the_reading_soon(tmp_path, monkeypatch):
    fill(tmp_path, {f"a/{n}.png": picture(n) for n in range(300)} | {"b/1.png": picture()})
    checked: list[Path] = []
    decode = reading.decode
    monkeypatch.setattr(reading, "decode", lambda path, root: checked.append(path) or decode(path, root=root))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_data(tmp_path, progress=interrupt)
    assert len(checked) < 301


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "one sub-folder per class"),
        ({"1.png": picture(), "2.png": picture()}, "2 images or links that lie loose"),
        ({"a/1.png": picture()}, "one class only, 'a'"),
        ({"a/1.png": picture(), "b/notes.txt": b"x"}, "'b' of .* holds no image"),
        ({"train/a/1.png": picture(), "test/a/1.png": picture()}, "an existing split"),
        ({"a/1.png": b"", "b/1.png": b"no"}, "no usable image .*2 rejected"),
    ],
)
def test_folder_that_is_no_image_folder_is_an_error_that_says_why(tmp_path, files, message):
    with pytest.raises(DatasetError, match=message):
        load_data(fill(tmp_path, files))


def test_location_that_does_not_exist_is_an_error_that_lists_the_formats(tmp_path):
    with pytest.raises(DatasetError, match=r"image folder.*Does the path exist"):
        load_data(tmp_path / "nowhere")


def test_no_candidates_give_no_samples(tmp_path):
    assert check_images([], tmp_path) == ([], [])


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_a_folder_that_another_format_knows_is_left_to_it(tmp_path, monkeypatch, name):
    fill(tmp_path, {"a/1.png": picture(1), "b/1.png": picture(2), "train-labels-idx1-ubyte": b""})

    class OneList:
        label = "a format that looks into a folder"

        def matches(self, location: str) -> bool:
            return Path(location, "train-labels-idx1-ubyte").is_file()

        def read(self, location: str, progress: object = None) -> Dataset:
            raise DatasetError("read by the other format")

    assert list(FORMATS)  # loads the plug-ins
    monkeypatch.setitem(FORMATS._classes, name, OneList)
    with pytest.raises(DatasetError, match="read by the other format"):
        load_data(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    assert len(load_data(tmp_path)) == 2
