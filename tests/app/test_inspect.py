"""The page "Inspect", run without a browser."""

import json
import re
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from viewer_app import SESSION, finish, panel, start, texts

from app import maps, widgets, worker
from app.opening import Answer, Opened
from app.words import literal
from explain.errors import CaptureError
from explain.i18n import translate
from explain.reviews import Reviews
from explain.training.pair import MATCHED_FIELDS, MatchedPair


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    worker.the_worker.clear()


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> AppTest:
    return finish(start(monkeypatch, tiny_pair.path, "inspect"))


def cells(test: AppTest) -> dict[tuple[str, str], dict]:
    return {(cell["model"], cell["method"]): cell for cell in panel(test)["cells"]}


def test_six_maps_are_shown_with_both_answers_and_what_is_known_of_them(page: AppTest) -> None:
    assert not page.exception and not page.error and not page.warning
    shown = panel(page)
    assert [row["model"] for row in shown["rows"]] == ["vpt", "ft"] and all(row["answer"] for row in shown["rows"])
    assert [column["agnostic"] for column in shown["columns"]] == [False, False, True]
    found = cells(page)
    assert len(found) == 6 and all(cell["values"] and not cell["message"] for cell in found.values())
    lines = "\n".join(line for cell in found.values() for line in cell["lines"])
    assert all(words in lines for words in ("raw", "class-agnostic", "completeness gap", "prompt share", "nodes"))
    assert {cell["flag"] for cell in found.values()} == {"not_tested"}
    assert "Agreement VPT – FT" in texts(page)
    page.session_state[widgets.MATCHED] = True
    assert f"{len(MATCHED_FIELDS)} of {len(MATCHED_FIELDS)} fields are equal" in texts(page.run())


def test_a_page_is_drawn_before_its_maps_are_there_and_says_what_runs(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    first = start(monkeypatch, tiny_pair.path, "inspect")
    assert not first.exception and all(cell["message"] == "being computed…" for cell in cells(first).values())
    assert not [cell for cell in cells(finish(first)).values() if cell["message"]]


def test_what_is_stopped_is_not_computed_until_it_is_wanted_again(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    calls: list[str] = []
    real = maps.attribute

    def slow(*args, **options):
        while not options["cancelled"]():
            pass
        calls.append(options["methods"])
        return real(*args, **options)

    monkeypatch.setattr(maps, "attribute", slow)
    test = start(monkeypatch, tiny_pair.path, "inspect")
    test.button(key="stop_work").click().run()
    assert "Stopped" in texts(test) and not test.exception
    monkeypatch.setattr(maps, "attribute", real)
    test.button(key="resume_work").click().run()
    assert not [cell for cell in cells(finish(test)).values() if cell["message"]]


def test_what_was_finished_before_the_stop_does_not_start_the_rest_again(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    real, calls = maps.attribute, 0

    def first_only(*args, **options):
        nonlocal calls
        calls += 1
        while calls > 1 and not options["cancelled"]():
            time.sleep(0.01)
        return real(*args, **options)

    monkeypatch.setattr(maps, "attribute", first_only)
    test = start(monkeypatch, tiny_pair.path, "inspect")
    while worker.the_worker().progress(SESSION).done < 1:
        time.sleep(0.02)
    test.button(key="stop_work").click().run()
    assert "Stopped" in texts(test)
    assert worker.the_worker().progress(SESSION).total == 0


def test_next_and_previous_step_through_the_images(page: AppTest, tiny_pair: MatchedPair) -> None:
    images = sorted(tiny_pair.test.by_id)
    assert page.button(key="step_left").disabled and panel(page)["sample"] == images[0]
    page.button(key="step_right").click().run()
    assert panel(page)["sample"] == images[1] == page.query_params["sample"]
    page.button(key="step_left").click().run()
    assert panel(page)["sample"] == images[0]


def test_the_last_image_has_no_next(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    last = tiny_pair.vpt.predictions.ids[-1]
    assert start(monkeypatch, tiny_pair.path, "inspect", sample=last).button(key="step_right").disabled


def test_steps_go_through_what_the_filters_leave(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    link = {"class": "right", "sort": "vpt_confidence", "down": "1"}
    test = start(monkeypatch, tiny_pair.path, "inspect", **link)
    found = tiny_pair.vpt.predictions
    rows = [row for row in range(len(found.ids)) if found.labels[row] == 1]
    rows.sort(key=lambda row: -found.probabilities[row].max())
    assert panel(test)["sample"] == found.ids[rows[0]] and f"of {len(rows)}" in texts(test)
    test.button(key="step_right").click().run()
    assert panel(test)["sample"] == found.ids[rows[1]]
    test.button(key="all_images").click().run()
    assert panel(test)["sample"] == found.ids[rows[1]] and f"of {len(found.ids)}" in texts(test)


def test_the_target_is_what_both_models_are_explained_for(page: AppTest) -> None:
    before = cells(page)
    assert panel(page)["title"].endswith("explained for left")
    page.selectbox(key="target").set_value("class:right").run()
    after = cells(finish(page))
    assert panel(page)["title"].endswith("explained for right") and page.query_params["target"] == "class:right"
    changed = {method for (_, method), cell in after.items() if cell["lines"] != before[_, method]["lines"]}
    assert changed == {"grad_cam", "integrated_gradients"}  # the rollout does not depend on the class


def test_each_model_can_be_explained_for_its_own_answer(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Opened.answer

    def contrary(self: Opened, model: str, name: str) -> Answer | None:
        answer, index = real(self, model, name), 1 if model == "vpt" else 0
        return answer and Answer(answer.probabilities, index, self.class_names[index], None)

    monkeypatch.setattr(Opened, "answer", contrary)
    page.selectbox(key="target").set_value("own").run()
    assert panel(finish(page))["title"].endswith("Each model's own answer") and page.query_params["target"] == "own"
    page.session_state["code_open"] = True
    (code,) = page.run().code
    assert "targets = {'vpt': 1, 'ft': 0}" in code.value


def test_methods_and_models_can_be_chosen(page: AppTest) -> None:
    page.multiselect(key="methods").set_value(["attention_rollout"]).run()
    assert list(cells(finish(page))) == [("vpt", "attention_rollout"), ("ft", "attention_rollout")]
    page.multiselect(key="models").set_value(["linear", "ft"]).run()
    assert [row["model"] for row in panel(finish(page))["rows"]] == ["linear", "ft"]
    page.multiselect(key="methods").set_value([]).run()
    assert not page.exception and "at least one method" in texts(page)


def test_a_link_restores_image_target_filter_and_language(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    wanted = [name for name in tiny_pair.vpt.predictions.ids if name.startswith("right/")][2]
    link = {"sample": wanted, "target": "answer:vpt", "class": "right", "lang": "ja", "methods": "raw_attention"}
    test = start(monkeypatch, tiny_pair.path, "inspect", **link)
    assert not test.exception and not test.warning
    assert panel(test)["sample"] == wanted and test.selectbox(key="target").value == "answer:vpt"
    assert [column["method"] for column in panel(test)["columns"]] == ["raw_attention"]
    assert test.query_params == link


@pytest.mark.parametrize("key", ["sample", "target", "outcome", "class", "lang", "sort", "part"])
def test_a_value_that_does_not_exist_is_put_back_with_a_note(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, key: str
) -> None:
    test = start(monkeypatch, tiny_pair.path, "inspect", **{key: "![x](y)"})
    assert not test.exception
    assert [f"{key} = ![x](y)" in warning.value.replace("\\", "") for warning in test.warning] == [True]
    assert test.query_params.get(key) != "![x](y)"
    test.run()
    assert not test.warning


def test_going_back_in_the_browser_wins_over_the_session(page: AppTest, tiny_pair: MatchedPair) -> None:
    page.button(key="step_right").click().run()
    page.query_params["sample"] = tiny_pair.vpt.predictions.ids[3]
    page.run()
    assert panel(page)["sample"] == tiny_pair.vpt.predictions.ids[3]


def test_a_method_that_fails_says_so_in_its_place(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CaptureError("no gradient here; use another layer")

    monkeypatch.setattr(maps, "attribute", fail)
    page.button(key="step_right").click().run()
    found = cells(finish(page)).values()
    assert not page.exception and not page.error
    assert {cell["message"] for cell in found} == {"no gradient here; use another layer"}
    assert [cell for cell in found if cell["values"]] == []


def test_a_review_is_kept_and_shown_again(page: AppTest, tiny_pair: MatchedPair) -> None:
    name = panel(page)["sample"]
    file = tiny_pair.path / "reviews.jsonl"
    try:
        page.text_area(key="review_note").set_value("looks at the *edge*")
        page.text_input(key="review_tags").set_value("edge, to ask,edge")
        page.button_group(key="review_verdict").set_value("wrong_place")
        page.button(key="save_review").click().run()
        assert not page.exception and not page.error
        (review,) = Reviews(tiny_pair.path).by_sample().values()
        assert (review.sample, review.verdict, review.tags) == (name, "wrong_place", ("edge", "to ask"))
        assert review.models == {arm: tiny_pair.runs[arm].manifest.identity for arm in ("vpt", "ft")}
        page.button(key="step_right").click().run()
        assert page.text_area(key="review_note").value == "" and page.button_group(key="review_verdict").value is None
        page.button(key="step_left").click().run()
        assert page.text_area(key="review_note").value == "looks at the *edge*" and not page.warning
        line = json.loads(file.read_text())
        file.write_text(json.dumps(line | {"models": {"vpt": "older"}, "note": "said of other, older weights"}) + "\n")
        page.run()
        assert [warning for warning in page.warning if "other weights" in warning.value]
    finally:
        file.unlink(missing_ok=True)


def test_the_lines_of_python_make_the_maps_that_are_shown(page: AppTest, tiny_pair: MatchedPair) -> None:
    page.session_state["code_open"] = True
    (code,) = page.run().code
    scope: dict = {}
    exec(code.value, scope)
    found = scope["maps"]
    assert list(found) == ["vpt", "ft"]
    assert list(found["vpt"]) == ["grad_cam", "integrated_gradients", "attention_rollout"]
    shown = cells(page)["vpt", "grad_cam"]["lines"][0]
    low, high = (float(text.replace("\u2212", "-")) for text in re.findall(r"[\u2212\d.e-]+", shown))
    values = found["vpt"]["grad_cam"].values
    assert (float(f"{values.min():.3g}"), float(f"{values.max():.3g}")) == (low, high)


def test_japanese_and_the_language_of_the_browser(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    test = start(monkeypatch, tiny_pair.path, "inspect", locale="ja-JP")
    heads = {lang: translate(lang)("viewer.inspect.review") for lang in ("en", "ja")}
    assert heads["ja"] in [head.value for head in test.subheader]
    test.radio(key="lang").set_value("en").run()
    assert heads["en"] in [head.value for head in test.subheader]
    assert test.query_params["lang"] == "en"


def test_text_of_users_is_shown_as_it_is() -> None:
    for text in ("a*b*c", "<b>x</b>", "![x](http://y)", ":red[x] $x$", "a_b_`c`", "1. x\n# y", "a|b"):
        shown = literal(text)
        assert shown.replace("\\", "") == " ".join(text.split())
        assert all(shown[at - 1] == "\\" for at, letter in enumerate(shown) if letter in "*_`[]<>$#!:.()|")


def test_a_picture_that_cannot_be_read_is_said(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    real = Opened.image

    def moved(self: Opened, name: str):
        from dataclasses import replace

        return replace(real(self, name), path=tmp_path / "gone.png", sha256="0" * 64)

    monkeypatch.setattr(Opened, "image", moved)
    test = start(monkeypatch, tiny_pair.path, "inspect")
    assert not test.exception and len(test.error) == 1 and "gone" in test.error[0].value
