"""The page "Models": measures over the blocks, what was trained where, and the prompts."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_evidence import BLOCKS, write_fake_evidence
from small_archive import explain_all, small_models
from streamlit.testing.v1 import AppTest
from viewer_app import finish, start, texts

from app.tuned_weights import TunedWeights, place_of, weights_of
from explain.data.base import Dataset
from explain.training.pair import MatchedPair


@pytest.fixture(scope="module")
def measured(tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained pair with evidence beside it."""
    folder = tmp_path_factory.mktemp("models") / "pair"
    shutil.copytree(tiny_pair.path, folder)
    write_fake_evidence(folder, tiny_pair)
    return folder


def show(monkeypatch: pytest.MonkeyPatch, run: Path, section: str, lang: str = "en") -> AppTest:
    page = start(monkeypatch, run, "models", lang=lang)
    page.session_state["models"] = section
    return finish(page.run())


def figures(page: AppTest) -> int:
    return len(page.get("plotly_chart"))


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("section, expected", [("blocks", 2), ("trained", 1), ("prompts", 2)])
def test_every_part_is_there(
    monkeypatch: pytest.MonkeyPatch, measured: Path, section: str, expected: int, lang: str
) -> None:
    page = show(monkeypatch, measured, section, lang)
    assert not page.exception and not page.error and not page.warning and figures(page) == expected
    assert {"en": "cannot tell", "ja": "分か"}[lang] in texts(page) or section == "trained"


def test_without_an_evaluation_the_command_and_what_can_be_shown(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    page = show(monkeypatch, tiny_pair.path, "blocks")
    assert [code.value for code in page.code] == [f"explain evaluate {tiny_pair.path}"] and figures(page) == 0
    assert "need no evaluation" in texts(page)


def test_another_measure_has_another_figure_and_sentence(monkeypatch: pytest.MonkeyPatch, measured: Path) -> None:
    page = show(monkeypatch, measured, "blocks")
    before, overview = (chart.proto.spec for chart in page.get("plotly_chart"))
    page.selectbox(key="inside").set_value("prompt_mass").run()
    after, same = (chart.proto.spec for chart in page.get("plotly_chart"))
    assert after != before and same == overview and "**Prompt mass**" in texts(page)
    assert page.table[0].value.shape == (2, BLOCKS + 1)  # VPT, and its chance


def test_trained_parameters_are_counted_where_they_are(tiny_pair: MatchedPair) -> None:
    for arm, run in tiny_pair.runs.items():
        found = weights_of(run.model)
        assert sum(trained for trained, _ in found.parameters.values()) == run.manifest.trained_parameters, arm
        assert sum(total for _, total in found.parameters.values()) == run.manifest.total_parameters, arm
    vpt, ft = (weights_of(tiny_pair.runs[arm].model) for arm in ("vpt", "ft"))
    assert len(vpt.prompts) == tiny_pair.vpt.model.num_blocks and vpt.parameters["embedding"][0] == 0 and not ft.prompts
    width = tiny_pair.vpt.model.vit.embed_dim
    assert {trained for place, (trained, _) in vpt.parameters.items() if place.isdigit()} == {3 * width}
    assert ft.parameters["1"][0] == ft.parameters["1"][1]


def test_places_outside_the_blocks() -> None:
    assert [place_of(f"vit.{name}") for name in ("pos_embed", "blocks.11.block.attn.qkv.weight", "norm.bias",
                                                 "head.weight")] == ["embedding", "12", "head", "head"]  # fmt: skip


def test_norms_and_cosines_of_known_prompts() -> None:
    prompts = np.array([[3, 0, 0, 0], [0, 4, 0, 0], [-1, 0, 0, 0]], dtype=np.float32)
    weights = TunedWeights({}, {2: prompts, 5: prompts[:1]})
    np.testing.assert_allclose(weights.norms()[2], [3, 4, 1])
    np.testing.assert_allclose(weights.cosines(2), [[1, 0, -1], [0, 1, 0], [-1, 0, 1]])
    assert weights.likeness() == {2: pytest.approx(1 / 3)}


def test_on_an_archive_without_its_pair_the_page_says_what_to_open(
    monkeypatch: pytest.MonkeyPatch, pictures: Dataset, tmp_path: Path
) -> None:
    explain_all(small_models(), pictures, tmp_path / "maps")
    page = start(monkeypatch, tmp_path / "maps", "models")
    assert not page.exception and not page.error and figures(page) == 0
    assert [code.value for code in page.code] == ["explain view RUN"]
