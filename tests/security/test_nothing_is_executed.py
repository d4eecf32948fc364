"""Nothing that is read is run: neither by what the source calls, nor when files that ask for it are handed over."""

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forbidden_calls import RUNS_WHAT_IT_READS, forbidden
from harm import MAKERS, plain
from squares import draw_pictures

from explain import cli
from explain.attribution import Attribution
from explain.backbone import load_backbone
from explain.data.base import load_data
from explain.errors import BackboneError, IntegrityError
from explain.files import read_json, sha256_file, write_json
from explain.prompts.parcel import import_parcel
from explain.prompts.store import PromptStore
from explain.training.pair import MatchedPair
from explain.training.run import Run

TINY = "vit_tiny_patch16_224"

BAD = (
    "import pickle",
    "from cloudpickle import loads",
    "import ray.cloudpickle as fast",
    "import ray\nray.cloudpickle.loads(data)",
    "import dill, marshal",
    "import tarfile",
    "import torch\ntorch.load(path)",
    "import torch\ntorch.load(path, weights_only=True)",
    "from torch import load as fetch\nfetch(path)",
    "import numpy as np\nnp.load(path)",
    "from numpy import load\nload(path)",
    "import yaml\nyaml.load(text, Loader=yaml.Loader)",
    "from yaml import full_load\nfull_load(text)",
    "import cv2\ncv2.imread(path)",
    "import cv2 as c\nc.VideoCapture(path)",
    "archive.extractall(folder)",
    "frame.to_pickle(path)",
    "import os\nos.system(command)",
    "import subprocess\nsubprocess.run(command, shell=True)",
    "import subprocess\nsubprocess.run(command, shell=wanted)",
    "from multiprocessing import Pool\nPool(2)",
    "build(name, trust_remote_code=True)",
    "read(path, **{'allow_pickle': True})",
    "eval(text)",
    "__import__(name)",
    "try:\n    work()\nexcept:\n    pass",
    "try:\n    work()\nexcept Exception:\n    pass",
    "try:\n    work()\nexcept (ValueError, Exception) as error:\n    pass",
)
GOOD = (
    "import re, torch\nre.compile('a')\ntorch.compile(network)",
    "import yaml\nyaml.safe_load(text)",
    "import subprocess\nsubprocess.run([program, argument], shell=False)",
    "from explain.data.base import load_data\nload_data(path)",
    "model = explain.load(path)",
    "try:\n    work()\nexcept ValueError:\n    pass",
    "try:\n    work()\nexcept BaseException:\n    undo()\n    raise",
    "import zipfile\nzipfile.ZipFile(path).open(member)",
)


@pytest.mark.parametrize("source", BAD)
def test_the_check_of_the_sources_finds_what_is_forbidden(source: str) -> None:
    assert forbidden(source)


@pytest.mark.parametrize("source", GOOD)
def test_the_check_of_the_sources_lets_the_rest_pass(source: str) -> None:
    assert forbidden(source) == []


def test_benchmarks_may_catch_anything_but_not_unpickle() -> None:
    blind = "try:\n    work()\nexcept Exception:\n    pass"
    assert forbidden(blind, only=RUNS_WHAT_IT_READS) == []
    assert forbidden("from pickle import loads", only=RUNS_WHAT_IT_READS) == ["1: imports pickle.loads"]


# The files really do harm to whoever loads them, else the tests below would show nothing.


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "model.bin", "model.npy"])
def test_the_harmful_files_are_harmful(name: str, mark: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(MAKERS[name](mark))
    if name.endswith(".npy"):
        np.load(tmp_path / name, allow_pickle=True)
    elif name.endswith(".pth"):
        pickle.loads((tmp_path / name).read_bytes())  # noqa: S301
    else:
        torch.load(tmp_path / name, weights_only=False)
    assert mark.is_file()


@pytest.fixture(params=sorted(MAKERS))
def harmful(request: pytest.FixtureRequest, tmp_path: Path, mark: Path) -> Path:
    path = tmp_path / request.param
    path.write_bytes(MAKERS[request.param](mark))
    return path


@pytest.mark.parametrize("form", ["{}", TINY + "@{}"])
def test_no_backbone_file_is_executed(harmful: Path, mark: Path, form: str) -> None:
    safe_name = harmful.suffix == ".safetensors"
    with pytest.raises(IntegrityError if safe_name else BackboneError,
                       match="not a readable safetensors" if safe_name else "refused because loading one can run code"):
        load_backbone(form.format(harmful))
    assert not mark.exists()


@pytest.mark.parametrize("place", ["hf-hub:", "local-dir:", "random:local-dir:", TINY + ".x@local-dir:"])
def test_a_spec_does_not_lead_timm_to_a_folder_of_checkpoints(place: str, mark: Path, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(MAKERS["model.bin"](mark))
    write_json(tmp_path / "config.json", {"architecture": TINY, "num_classes": 0})
    with pytest.raises(BackboneError):
        load_backbone(f"{place}{tmp_path}")
    assert not mark.exists()


def test_an_image_folder_takes_no_such_file_for_an_image(harmful: Path, mark: Path, tmp_path: Path) -> None:
    data = draw_pictures(tmp_path / "squares", per_class=1)
    content = harmful.read_bytes()
    (data / "left" / harmful.name).write_bytes(content)
    (data / "left" / "named.png").write_bytes(content)
    found = load_data(data)
    assert [sample.id for sample in found.samples] == ["left/00.png", "right/00.png"]
    assert [(item.path.name, item.reason) for item in found.rejected] == [("named.png", "unsupported_format")]
    assert not mark.exists()


def test_an_attribution_is_not_loaded_from_it(harmful: Path, mark: Path) -> None:
    with pytest.raises(IntegrityError, match="not a readable safetensors file"):
        Attribution.load(harmful)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "use"),
    [
        ("weights.safetensors", lambda run: run.model),
        ("predictions.parquet", lambda run: run.predictions),
        ("history.jsonl", lambda run: run.history),
        ("recipe.json", lambda run: run.recipe),
    ],
)
def test_a_run_does_not_execute_what_lies_in_place_of_its_files(
    file: str, use: Callable[[Run], object], harmful: Path, mark: Path, tmp_path: Path, tiny_pair: MatchedPair
) -> None:
    run = replaced(tiny_pair.vpt, tmp_path, file, harmful.read_bytes())
    with pytest.raises(IntegrityError):
        use(run)
    assert not mark.exists()


def replaced(run: Run, folder: Path, file: str, content: bytes) -> Run:
    """A copy of a run with another file, whose hash the manifest agrees to."""
    copy = Path(shutil.copytree(run.path, folder / "run"))
    (copy / file).write_bytes(content)
    manifest = read_json(copy / "manifest.json")
    manifest["files"][file] = sha256_file(copy / file)
    write_json(copy / "manifest.json", manifest)
    return Run.load(copy)


def test_a_parcel_is_not_executed(harmful: Path, mark: Path, tmp_path: Path) -> None:
    store = PromptStore(tmp_path / "prompts")
    with pytest.raises(IntegrityError):
        import_parcel(store, harmful)
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("names/line-3.json", plain(mark))
        archive.writestr(f"objects/{'a' * 64}/weights.safetensors", harmful.read_bytes())
    with pytest.raises(IntegrityError, match="is damaged, nothing was taken in"):
        import_parcel(store, packed)
    assert store.names() == [] and not mark.exists()


def test_the_command_line_says_so_in_one_line(
    harmful: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["explain", "backbones", "fetch", str(harmful)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    told = capsys.readouterr().err
    assert stop.value.code in (2, 5) and told.startswith("error: ") and told.count("\n") == 1
    assert not mark.exists()
