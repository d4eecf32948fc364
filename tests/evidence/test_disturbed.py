"""Answers on changed pictures: of images drawn by seed, with every arm, kept and not measured twice."""

from pathlib import Path

import numpy as np
import pytest
import torch

from explain.engine import load_images
from explain.errors import IntegrityError
from explain.evidence import disturbed as module
from explain.evidence.changes import DISTURBANCES, change_pixels
from explain.evidence.disturbed import choose_ids, load_disturbed, measure_disturbed
from explain.evidence.found import find_disturbed
from explain.files import read_json, write_json
from explain.training.pair import MatchedPair


def test_every_arm_answers_every_changed_image(
    tiny_pair: MatchedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure_disturbed(tiny_pair, tmp_path, images=5)
    assert len(found.ids) == 5 and set(found.changed) == set(DISTURBANCES)
    rows = [tiny_pair.vpt.predictions.ids.index(name) for name in found.ids]
    for arm, run in tiny_pair.runs.items():
        assert found.unchanged[arm] == tuple(run.predictions.correct[rows])
        model, samples = run.model, [tiny_pair.data.by_id[name] for name in found.ids]
        pixels = model.transform.denormalise(load_images(samples, model.transform))
        patch = run.manifest.image_size // model.layout.grid[1]
        with torch.inference_mode():
            answers = model(model.transform.normalise(change_pixels(pixels, "shift", patch))).argmax(dim=1)
        labels = np.array([sample.label for sample in samples])
        assert found.changed["shift"][arm] == tuple(answers.numpy() == labels)
    monkeypatch.setattr(module, "run_forwards", lambda *args: pytest.fail("measured again"))
    assert measure_disturbed(tiny_pair, tmp_path, images=5) == found == load_disturbed(tmp_path)


def test_images_are_drawn_by_seed_right_ones_and_wrong_ones(fake_pair: MatchedPair) -> None:
    few = choose_ids(fake_pair, 10, 0)
    assert len(set(few)) == 10 and few == choose_ids(fake_pair, 10, 0) != choose_ids(fake_pair, 10, 1)
    assert choose_ids(fake_pair, 1000, 0) == tuple(sorted(fake_pair.vpt.predictions.ids))


def test_answers_of_other_weights_are_not_found_and_damage_is_said(tiny_pair: MatchedPair, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    measure_disturbed(tiny_pair, folder, images=2)
    pair = MatchedPair(tmp_path, tiny_pair.runs)
    assert find_disturbed(pair) == load_disturbed(folder)
    record = read_json(folder / module.FILE)
    write_json(folder / module.FILE, record | {"weights": record["weights"] | {"ft": "ff" * 32}})
    assert find_disturbed(pair) is None
    write_json(folder / module.FILE, {"format": 1})
    with pytest.raises(IntegrityError, match="evaluate again"):
        find_disturbed(pair)
