"""Comparing two versions: what differs, cosines that know prompts have no order, agreement."""

from itertools import permutations

import numpy as np
import pytest
import torch

from explain.data.base import Dataset
from explain.prompts.acceptance import probe_images
from explain.prompts.compare import block_cosine, compare, match, match_greedily
from explain.prompts.store import PromptStore
from explain.training.run import Run


def test_permuted_prompts_are_the_same_prompts() -> None:
    a = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    found = block_cosine(3, a, a[[2, 0, 1, 4, 3]])
    assert found.block == 3
    assert found.matched == pytest.approx(1, abs=1e-12)
    assert found.in_order is not None and found.in_order < 0.9


def test_cosines_of_known_directions() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    b = torch.tensor([[0.0, 3.0], [1.0, 1.0]])
    found = block_cosine(0, a, b)
    assert found.in_order == pytest.approx(0.5**0.5 / 2)
    assert found.matched == pytest.approx((0.5**0.5 + 1) / 2)


def test_sets_of_unequal_size_match_the_smaller_one() -> None:
    a = torch.eye(3)
    found = block_cosine(0, a, a[[2, 0]])
    assert found.in_order is None and found.matched == pytest.approx(1)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_the_matching_is_the_best_of_all(shape: tuple[int, int]) -> None:
    similarity = np.random.default_rng(0).normal(size=shape)
    wide = similarity if shape[0] <= shape[1] else similarity.T
    best = max(sum(wide[row, column] for row, column in enumerate(order))
               for order in permutations(range(wide.shape[1]), wide.shape[0]))  # fmt: skip
    assert similarity[match(similarity)].sum() == pytest.approx(best)
    rows, columns = match_greedily(similarity)
    assert len(set(rows)) == len(set(columns)) == min(shape)
    assert similarity.max() in similarity[rows, columns]
    assert similarity[rows, columns].sum() <= best + 1e-12


def test_settings_that_differ_and_metrics_side_by_side(filled: PromptStore) -> None:
    result = compare(filled.get("deep_b"), filled.get("longer"))
    settings = {field: (left, right) for field, left, right in result.settings}
    assert settings["tuning_options.num_tokens"] == (3, 5)
    assert not {"backbone.sha256", "split_hash", "recipe_hash"} & settings.keys()
    metrics = {name: values for name, *values in result.metrics}
    assert metrics["recall of left"] == [0.5, 1.0] and metrics["accuracy"] == [0.75, 1.0]
    assert [row.block for row in result.cosines] == list(range(12))
    assert all(row.in_order is None for row in result.cosines)


def test_a_version_is_like_itself(filled: PromptStore) -> None:
    result = compare(filled.get("line-3@v2"), filled.get("line-3@v2"))
    assert result.settings == [] and result.notes == []
    assert all(row.in_order == pytest.approx(1) and row.matched == pytest.approx(1) for row in result.cosines)
    assert result.agreement is not None and (result.agreement.share, result.agreement.count) == (1, 8)


def test_agreement_on_the_common_test_images(filled: PromptStore) -> None:
    """`deep_b` answers two of the eight images otherwise than the label, `longer` none."""
    agreement = compare(filled.get("deep_b"), filled.get("longer")).agreement
    assert agreement is not None
    assert (agreement.share, agreement.count, agreement.images) == (0.75, 8, "common test images")


def test_agreement_on_probe_images_is_of_the_models_themselves(
    filled: PromptStore, runs: dict[str, Run], pictures: Dataset
) -> None:
    probe = probe_images(pictures.root)[::3]
    images = torch.stack([runs["deep_b"].model.transform.normalise(
        runs["deep_b"].model.transform.pixels(_open(path))) for path in probe])  # fmt: skip
    with torch.no_grad():
        classes = [runs[name].model(images).argmax(1) for name in ("deep_b", "shallow")]
    agreement = compare(filled.get("deep_b"), filled.get("shallow"), images=probe).agreement
    assert agreement is not None
    assert agreement.share == float((classes[0] == classes[1]).double().mean()) and agreement.count == len(probe)


def test_what_cannot_be_compared_is_said(filled: PromptStore) -> None:
    classes = compare(filled.get("deep"), filled.get("three"))
    assert classes.agreement is None and classes.notes == ["agreement: the two tell different classes apart"]
    linear = compare(filled.get("deep"), filled.get("linear"))
    assert linear.cosines == [] and linear.notes == ["cosine: at least one of the two has no prompts"]


def _open(path: object) -> object:
    from explain.engine import open_image

    return open_image(path)
