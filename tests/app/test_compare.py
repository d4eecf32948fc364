"""The page "Compare", run without a browser."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from viewer_app import start, texts

from app import export, state
from app.picture import Comparison, Look, arrange, describe_measures, enlarge
from app.widgets import literal
from explain.attribution import Attribution
from explain.errors import CaptureError
from explain.i18n import translate
from explain.training.pair import MATCHED_FIELDS, MatchedPair


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> AppTest:
    return start(monkeypatch, tiny_pair.path)


def pictures(test: AppTest) -> list[str]:
    """Addresses of the pictures on the page: the input, then the maps row by row; equal pictures, equal addresses."""
    return [image.url for element in test.get("image") for image in element.proto.imgs]


def test_six_maps_are_shown_with_both_answers(page: AppTest) -> None:
    assert not page.exception and not page.error and not page.warning
    assert len(pictures(page)) == 7
    shown = texts(page)
    assert f"{len(MATCHED_FIELDS)} of {len(MATCHED_FIELDS)} fields equal" in shown
    assert "class-agnostic" in shown and "completeness gap" in shown and "prompt share" in shown
    assert "black baseline" in shown and "nodes" in shown
    assert shown.count("answers") == 2 and ("right" in shown or "wrong" in shown)


def test_next_and_previous_step_through_the_images(page: AppTest) -> None:
    images = list(page.selectbox(key="sample").options)
    assert page.button(key="step_left").disabled
    before = pictures(page)
    page.button(key="step_right").click().run()
    assert page.selectbox(key="sample").value == images[1] and page.query_params["sample"] == images[1]
    assert pictures(page) != before
    page.button(key="step_left").click().run()
    assert page.selectbox(key="sample").value == images[0] and pictures(page) == before


def test_the_last_image_has_no_next(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    last = tiny_pair.vpt.predictions.ids[-1]
    assert start(monkeypatch, tiny_pair.path, sample=last).button(key="step_right").disabled


def test_filters_leave_the_images_they_name_and_say_how_many(page: AppTest, tiny_pair: MatchedPair) -> None:
    found = tiny_pair.vpt.predictions
    page.selectbox(key="class").set_value("right").run()
    expected = [name for name, label in zip(found.ids, found.labels, strict=True) if label == 1]
    assert list(page.selectbox(key="sample").options) == expected
    assert page.selectbox(key="sample").value == expected[0]
    assert f"right ({len(expected)})" in page.selectbox(key="class").options
    page.selectbox(key="class").set_value(state.EVERY_CLASS).run()
    total = 0
    for outcome in state.OUTCOMES[1:]:
        page.selectbox(key="outcome").set_value(outcome).run()
        assert not page.exception
        listed = [] if page.info else list(page.selectbox(key="sample").options)
        total += len(listed)
        both = dict(zip(found.ids, zip(found.correct, tiny_pair.ft.predictions.correct, strict=True), strict=True))
        rule = {"both_right": (True, True), "only_vpt": (True, False), "only_ft": (False, True)}
        assert all(both[name] == rule.get(outcome, (False, False)) for name in listed)
    assert total == len(found.ids)


def test_the_target_is_what_both_models_are_explained_for(page: AppTest) -> None:
    before = pictures(page)
    assert "explained for the class **left**" in texts(page)
    page.selectbox(key="target").set_value("class:right").run()
    after = pictures(page)
    assert "explained for the class **right**" in texts(page) and page.query_params["target"] == "class:right"
    changed = [old != new for old, new in zip(before, after, strict=True)]
    assert changed == [False, True, True, False, True, True, False]  # neither the input nor the rollouts


def test_the_scale_shared_by_the_models_changes_pictures_and_legends(page: AppTest) -> None:
    before = pictures(page)
    page.radio(key=state.SCOPE).set_value("sample").run()
    assert not page.exception and pictures(page) != before


def test_opacity_and_colours_compute_no_map_again(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a map was computed again")

    before = pictures(page)
    monkeypatch.setattr(state, "attribute", refuse)
    page.slider(key="opacity").set_value(0.3).run()
    page.selectbox(key="positive").set_value("viridis").run()
    page.selectbox(key="signed").set_value("PuOr_r").run()
    page.toggle(key="average").set_value(False).run()
    assert not page.exception
    assert all(old != new for old, new in zip(before[1:], pictures(page)[1:], strict=True))


def test_the_linear_probe_is_a_third_row_when_wanted(page: AppTest) -> None:
    page.toggle(key="reference").set_value(True).run()
    assert not page.exception and len(pictures(page)) == 10 and texts(page).count("answers") == 3


def test_methods_can_be_left_out(page: AppTest) -> None:
    page.multiselect(key="methods").set_value(["attention_rollout"]).run()
    assert len(pictures(page)) == 3
    page.multiselect(key="methods").set_value([]).run()
    assert not page.exception and "at least one method" in texts(page)


def test_a_link_restores_image_target_filter_and_language(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    wanted = [name for name in tiny_pair.vpt.predictions.ids if name.startswith("right/")][2]
    link = {"sample": wanted, "target": "vpt", "class": "right", "lang": "ja"}
    test = start(monkeypatch, tiny_pair.path, **link)
    assert not test.exception and not test.warning
    assert {key: test.selectbox(key=key).value for key in ("sample", "target", "class")} == {
        "sample": wanted, "target": "vpt", "class": "right"
    }  # fmt: skip
    assert test.query_params == link


@pytest.mark.parametrize("key", ["sample", "target", "outcome", "class", "lang"])
def test_a_value_that_does_not_exist_is_put_back_with_a_note(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, key: str
) -> None:
    test = start(monkeypatch, tiny_pair.path, **{key: "![x](y)"})
    assert not test.exception
    assert [f"{key} = ![x](y)" in warning.value.replace("\\", "") for warning in test.warning] == [True]
    assert test.query_params.get(key) != "![x](y)"
    test.run()
    assert not test.warning


def test_going_back_in_the_browser_wins_over_the_session(page: AppTest, tiny_pair: MatchedPair) -> None:
    page.button(key="step_right").click().run()
    page.query_params["sample"] = tiny_pair.vpt.predictions.ids[3]
    page.run()
    assert page.selectbox(key="sample").value == tiny_pair.vpt.predictions.ids[3]


def test_japanese_is_chosen_by_the_switch(page: AppTest) -> None:
    page.radio(key="lang").set_value("ja").run()
    assert not page.exception and "クラスに依存しない" in texts(page) and page.query_params["lang"] == "ja"


def test_the_language_of_the_browser_is_the_default(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    test = start(monkeypatch, tiny_pair.path, locale="ja-JP")
    assert "クラスに依存しない" in texts(test) and "lang" not in test.query_params
    assert "class-agnostic" in texts(start(monkeypatch, tiny_pair.path, locale="fr"))


def test_a_folder_that_is_no_pair_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_pair: MatchedPair
) -> None:
    for run, words in ((tmp_path / "missing", "no folder"), (tmp_path, "not a finished pair")):
        test = start(monkeypatch, run)
        assert not test.exception and len(test.error) == 1 and words in texts(test) and "explain" in texts(test)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_pair.path, broken)
    manifest = json.loads((broken / "ft" / "manifest.json").read_text())
    (broken / "ft" / "manifest.json").write_text(json.dumps(manifest | {"seed": 7}))
    test = start(monkeypatch, broken)
    assert not test.exception and "not a matched pair" in texts(test) and "seed" in texts(test)


def test_a_run_that_is_trained_again_is_loaded_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_pair: MatchedPair
) -> None:
    test = start(monkeypatch, tmp_path / "pair")
    assert test.error
    shutil.copytree(tiny_pair.path, tmp_path / "pair")
    test.run()
    assert not test.error and len(pictures(test)) == 7


def test_a_method_that_fails_says_so_in_its_place(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CaptureError("no gradient here; use another layer")

    st.cache_data.clear()  # other tests have looked at these images
    monkeypatch.setattr(state, "attribute", fail)
    page.button(key="step_right").click().run()
    assert not page.exception and not page.error and len(pictures(page)) == 1
    assert [warning.value for warning in page.warning] == [literal("no gradient here; use another layer")] * 6


@pytest.mark.parametrize("text", ["a*b*c", "<b>x</b>", "![x](http://y)", ":red[x] $x$", "a_b_`c`", "1. x\n# y"])
def test_text_of_users_is_shown_as_it_is(text: str) -> None:
    shown = literal(text)
    assert shown.replace("\\", "") == " ".join(text.split())
    assert all(shown[at - 1] == "\\" for at, letter in enumerate(shown) if letter in "*_`[]<>$#!:.()")


def attribution(values: np.ndarray, method: str = "grad_cam", **extras: np.ndarray) -> Attribution:
    zero = np.zeros(1, np.int64)
    return Attribution(method, values[None].astype(np.float32), zero, np.zeros((1, 2), np.float32), (8, 8), {}, extras)


LOOK = Look(opacity=0.6, positive="cividis", signed="RdBu_r", scope="map", average=True)


def test_models_share_a_scale_method_by_method() -> None:
    maps = {
        ("vpt", "grad_cam"): attribution(np.full((2, 2), 1.0)), ("ft", "grad_cam"): attribution(np.full((2, 2), 4.0)),
        ("vpt", "attention_rollout"): attribution(np.full((2, 2), 9.0), "attention_rollout"),
    }  # fmt: skip
    alone = arrange(maps, LOOK, (2, 2))
    assert [shown.scale.high for shown in alone.values()] == [1, 4, 9]
    shared = arrange(maps, Look(0.6, "cividis", "RdBu_r", "sample", True), (2, 2))
    assert [shown.scale.high for shown in shared.values()] == [4, 4, 9]


def test_a_finer_map_is_averaged_over_patches_but_keeps_its_raw_range() -> None:
    values = np.zeros((8, 8))
    values[0, 0] = 16
    shown = arrange({("vpt", "integrated_gradients"): attribution(values, "integrated_gradients")}, LOOK, (2, 2))
    (part,) = shown.values()
    assert part.averaged and part.values.tolist() == [[1, 0], [0, 0]] and part.raw_range == ("0", "16")


def test_a_map_without_positive_values_is_blank() -> None:
    (shown,) = arrange({("vpt", "grad_cam"): attribution(np.full((2, 2), -1.0))}, LOOK, (2, 2)).values()
    assert shown.blank


def test_measures_are_told_in_words_and_what_is_not_measured_is_not() -> None:
    t = translate("en")
    shares = {"prompt_share": np.array([0.25]), "prompt_share_null": np.array([0.5])}
    measured = attribution(np.ones((2, 2)), "attention_rollout", **shares)
    (shown,) = arrange({("vpt", "attention_rollout"): measured}, LOOK, (2, 2)).values()
    assert describe_measures(shown, t) == ["prompt share 25.0 % (uniform 50.0 %)"]
    nothing = attribution(np.ones((2, 2)), prompt_share=np.zeros(1), prompt_share_null=np.zeros(1))
    (shown,) = arrange({("ft", "grad_cam"): nothing}, LOOK, (2, 2)).values()
    assert describe_measures(shown, t) == []


def test_small_images_are_enlarged_by_a_whole_factor() -> None:
    assert enlarge(np.zeros((64, 64, 3), np.uint8)).shape == (448, 448, 3)
    assert enlarge(np.zeros((500, 500, 3), np.uint8)).shape == (500, 500, 3)


def test_downloads_hold_the_picture_and_the_raw_maps(tiny_pair: MatchedPair) -> None:
    opened = state.Opened(tiny_pair)
    sample = tiny_pair.test.samples[0]
    places = [(arm, method) for arm in ("vpt", "ft") for method in ("grad_cam", "attention_rollout")]
    maps = {place: state.find_maps(tiny_pair.runs[place[0]], sample, place[1], 1) for place in places}
    image = enlarge(state.load_pixels(tiny_pair.vpt, sample))
    comparison = Comparison(opened, sample, 1, ("vpt", "ft"), ("grad_cam", "attention_rollout"), image,
                            arrange(maps, LOOK, (4, 4)), {}, LOOK)  # fmt: skip
    stored = np.load(io.BytesIO(export.maps_npz(comparison)), allow_pickle=False)
    for arm, method in places:
        np.testing.assert_array_equal(stored[f"{arm}.{method}"], maps[arm, method].values[0])
    about = json.loads(str(stored["about"]))
    assert about["sample"] == sample.id and about["target"] == "right" and about["label"] == "left"
    for lang in ("en", "ja"):
        assert export.comparison_png(translate(lang), comparison).startswith(b"\x89PNG")


def test_file_names_of_downloads_are_plain() -> None:
    assert export.file_stem("a/../b c:*.png") == "a_.._b_c_.png"
