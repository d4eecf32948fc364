"""A walk through every page, in both languages and themes, in a real browser.

Set EXPLAIN_SCREENSHOTS to a folder to keep a picture of every page; without it they go where pytest keeps its files.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_evidence import write_fake_evidence
from in_browser import browsing, settle, viewing

import explain
from app.main import view_names
from explain.i18n import LANGUAGES, translate
from explain.reviews import Reviews, write_review
from explain.training.pair import MatchedPair, load_pair

Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("walk")]

THEIRS = {
    # the place to drop files at says that it is no more than decoration, and yet has a name
    "presentation-role-conflict": "stFileUploaderDropzone",
}
"""Rules of axe that streamlit breaks by itself -> the element in which alone that is allowed."""


@pytest.fixture(scope="module")
def folder(tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained pair with everything a page may show: maps, evidence, reviews."""
    import shutil

    copy = tmp_path_factory.mktemp("walked") / "pair"
    shutil.copytree(tiny_pair.path, copy)
    pair = load_pair(copy)
    explain.attribute_dataset(pair, pair.data, out=copy / "maps", options={"integrated_gradients": {"n_steps": 2}})
    write_fake_evidence(copy, pair)
    write_review(Reviews(copy), pair.test.samples[0].id, sha256=None, models={}, verdict="unclear", tags=("ask",))
    return copy


@pytest.fixture(scope="module")
def address(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with viewing(folder, tmp_path_factory.mktemp("anywhere")) as found:
        yield found


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures go."""
    given = os.environ.get("EXPLAIN_SCREENSHOTS")
    place = Path(given) if given else tmp_path_factory.mktemp("album")
    place.mkdir(parents=True, exist_ok=True)
    return place


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_page_is_drawn_whole_and_can_be_used_by_everybody(
    address: str, album: Path, lang: str, theme: str
) -> None:
    t = translate(lang)
    found: dict[str, list[str]] = {}
    with browsing(locale={"en": "en-US", "ja": "ja-JP"}[lang], color_scheme=theme) as page:
        page.goto(address)
        settle(page)
        for name in view_names():
            page.get_by_role("link", name=t(f"viewer.{name}.title"), exact=True).first.click()
            place = "" if name == view_names()[0] else name
            page.wait_for_function("place => location.pathname === `/${place}`", arg=place)
            settle(page)
            page.wait_for_timeout(300)  # figures are drawn after the script has ended
            page.screenshot(path=album / f"{name}.{lang}.{theme}.png", full_page=True)
            assert page.get_by_text(t("viewer.error")).count() == 0, name
            violations = Axe().run(page).response["violations"]
            nodes = [(one["id"], node) for one in violations for node in one["nodes"]]
            found[name] = [f"{rule}: {node['target']}: {node['html'][:300]}" for rule, node in nodes
                           if not is_theirs(page, rule, node)]  # fmt: skip
    assert {name: lines for name, lines in found.items() if lines} == {}


def is_theirs(page: "object", rule: str, node: dict) -> bool:
    """Whether streamlit alone makes this violation."""
    if rule not in THEIRS:
        return False
    (target, *inside) = node["target"]
    if inside or isinstance(target, list):  # in a component of ours, behind a shadow root
        return False
    return bool(page.evaluate(
        "([target, where]) => Boolean(document.querySelector(target)?.closest(`[data-testid=${where}]`))",
        [target, THEIRS[rule]],
    ))  # fmt: skip


def test_from_the_gallery_to_a_figure_and_the_numbers_on_disk(address: str) -> None:
    with browsing() as page:
        page.goto(address)
        settle(page)
        page.get_by_role("link", name="Gallery", exact=True).first.click()
        page.locator("a.cell").nth(2).click()
        page.wait_for_url("**/inspect?*sample=*")
        page.wait_for_function("() => performance.getEntriesByName('panel-painted').length > 0")
        settle(page)
        for label, start in (("PNG", b"\x89PNG"), ("SVG", b"<"), ("Raw maps (NPZ)", b"PK")):
            with page.expect_download() as download:
                page.get_by_role("button", name=label).first.click()
            assert Path(download.value.path()).read_bytes().startswith(start), label


def test_a_link_opens_what_it_names_in_its_language(address: str, folder: Path) -> None:
    wanted = load_pair(folder).vpt.predictions.ids[2]
    with browsing() as page:
        page.goto(f"{address}/inspect?sample={wanted}&target=class:right&lang=ja&look=o30")
        page.locator(f'[data-painted="{wanted}"]').wait_for()
        settle(page)
        assert page.get_by_text(translate("ja")("viewer.inspect.review")).first.is_visible()
        assert page.locator('[data-control="opacity"]').input_value() == "0.3"


def test_steps_keep_zoom_and_compute_nothing_that_the_archive_has(address: str) -> None:
    with browsing() as page:
        page.goto(f"{address}/inspect")
        page.wait_for_function("() => performance.getEntriesByName('panel-painted').length > 0")
        settle(page)
        box = page.locator("canvas[role=img]").first.bounding_box()
        page.mouse.move(box["x"] + 60, box["y"] + 60)
        page.mouse.wheel(0, -600)
        zoom = page.locator('[data-control="zoom"]')
        shown = zoom.inner_text()
        assert shown != "100 %"
        page.mouse.move(2, 2)
        for _ in range(3):
            before = page.evaluate("() => performance.getEntriesByName('panel-painted').length")
            page.keyboard.press("ArrowRight")
            page.wait_for_function("n => performance.getEntriesByName('panel-painted').length > n", arg=before)
            settle(page)
            assert zoom.inner_text() == shown
            assert page.get_by_text(translate("en")("viewer.stop"), exact=True).count() == 0
