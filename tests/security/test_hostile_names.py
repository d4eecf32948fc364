"""Names that are markup, scripts, links, formulas or longer than a page: shown as they are written, or refused."""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pypdf
import pytest
from fake_pair import make_fake_pair
from streamlit.testing.v1 import AppTest
from viewer_app import panel, start

import app
from app.main import view_names
from app.words import literal
from explain.data.base import Dataset, Rejected
from explain.data.names import find_obeyed
from explain.errors import InputError, IntegrityError
from explain.files import read_json, read_table, sha256_file, write_json, write_table
from explain.prompts.hub import pull, push
from explain.prompts.store import PromptStore
from explain.report.attachments import CONFIG, CRITERIA, METRICS, SUMS
from explain.report.content import gather
from explain.report.panels import Panels, draw_pictures
from explain.report.pdf import printable, render_pdf
from explain.report.schema.evidence import Evidence, evidence_id
from explain.report.write import write_report
from explain.training.pair import MatchedPair
from explain.training.run import Run

IMAGE = "<img src='x' onerror='alert(1)'>"
SCRIPT = "<script>alert(1)<"
LINK = "[x](javascript:alert(1))"
FORMULA = "=cmd()|'C calc'!A0"
AUTOLINK = "<https:127.0.0.1>"
LONG = "x" * 10_000
HOSTILE = (IMAGE, SCRIPT, LINK, FORMULA, AUTOLINK, LONG, "a\u202eb\x1b[2Jc\x07d\u200be", "<a href='javascript:1'>y<")
ACTIONS = {"/JavaScript", "/JS", "/URI", "/Launch", "/OpenAction", "/AA", "/GoToR", "/GoToE", "/SubmitForm",
           "/ImportData", "/RichMedia", "/Rendition", "/Movie", "/Sound"}  # fmt: skip


# The report


def everything(value: Any, seen: set[int]) -> Iterator[Any]:
    """Every object of a PDF that can be reached, each once."""
    if isinstance(value, pypdf.generic.IndirectObject):
        if value.idnum in seen:
            return
        seen.add(value.idnum)
        value = value.get_object()
    yield value
    if isinstance(value, dict):
        for key in value:
            yield from everything(value.raw_get(key) if hasattr(value, "raw_get") else value[key], seen)
    elif isinstance(value, list):
        for item in value:
            yield from everything(item, seen)


def check_inert(content: bytes) -> pypdf.PdfReader:
    """The PDF, which does nothing by itself, leads nowhere and carries only its evidence."""
    reader = pypdf.PdfReader(io.BytesIO(content))
    objects = list(everything(reader.trailer, set()))
    assert len(objects) > 100
    names = {str(key) for value in objects if isinstance(value, dict) for key in value}
    names |= {str(value) for value in objects if isinstance(value, pypdf.generic.NameObject)}
    assert names & ACTIONS == set()
    assert set(reader.attachments) - {"evidence.json"} <= {METRICS, CONFIG, CRITERIA, SUMS}
    return reader


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def text_of(reader: pypdf.PdfReader) -> str:
    return squeezed(" ".join(page.extract_text() for page in reader.pages))


def test_the_check_of_a_pdf_finds_what_it_looks_for() -> None:
    writer = pypdf.PdfWriter()
    for _ in range(60):
        writer.add_blank_page(100, 100)
    writer.add_attachment("evidence.json", b"{}")
    stream = io.BytesIO()
    writer.write(stream)
    check_inert(stream.getvalue())
    writer.add_uri(0, "http://127.0.0.1", pypdf.generic.RectangleObject((0, 0, 9, 9)))
    stream = io.BytesIO()
    writer.write(stream)
    with pytest.raises(AssertionError, match="/URI"):
        check_inert(stream.getvalue())


def test_a_report_on_hostile_class_and_file_names_is_inert_and_literal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (IMAGE, LINK, FORMULA)  # they are folders, so the files' names hold them too
    monkeypatch.setattr("fake_pair.CLASSES", names)
    pair = make_fake_pair(tmp_path / "pair", per_class=9, per_rule=1, name=SCRIPT)
    assert any(sample.id.startswith(LINK) for sample in pair.data.samples)
    reader = check_inert(write_report(pair, tmp_path / "report.pdf").read_bytes())
    shown = text_of(reader)
    for name in (*names, SCRIPT):
        assert squeezed(printable(name)) in shown


@pytest.fixture(scope="module")
def pictures_in_report(fake_pair: MatchedPair, fake_panels: Panels) -> int:
    content = render_pdf(gather(fake_pair, fake_panels, "en"), draw_pictures(fake_panels))
    return picture_count(check_inert(content))


def picture_count(reader: pypdf.PdfReader) -> int:
    found = everything(reader.trailer, set())
    return sum(isinstance(value, dict) and value.get("/Subtype") == "/Image" for value in found)


@pytest.mark.parametrize("text", HOSTILE[::3])
def test_every_text_of_a_record_is_printed_literally(
    text: str, fake_pair: MatchedPair, fake_panels: Panels, pictures_in_report: int
) -> None:
    record = gather(fake_pair, fake_panels, "en").model_dump(mode="json") | {"id": "", "statements": [text]}
    record["data"] |= {"name": text, "class_names": [text, "b", "c"], "source": text}
    record["data"]["rejected"] = [{"file": text, "reason": text, "detail": text}]
    record["data"]["counts"][0]["name"] = text
    record["panels"]["samples"][0] |= {"id": text, "truth": text}
    changed = Evidence.model_validate(record)
    changed = changed.model_copy(update={"id": evidence_id(changed)})
    reader = check_inert(render_pdf(changed, draw_pictures(fake_panels)))
    assert squeezed(printable(text))[:200] in text_of(reader)
    assert picture_count(reader) == pictures_in_report > 10


# The viewer


def renamed(pair: MatchedPair, folder: Path, names: tuple[str, ...]) -> Path:
    """A copy of a pair whose classes, images and data set have other names, in every file that says so."""
    copy = Path(shutil.copytree(pair.path, folder / "pair"))
    old = pair.data
    ids = {sample.id: f"{names[sample.label]}/{number}" for number, sample in enumerate(old.samples)}
    record = old.manifest() | {"class_names": list(names), "name": names[0]}
    for row in record["samples"]:
        row["id"] = ids[row["id"]]
    rows = sorted(record["samples"], key=lambda row: row["id"])
    samples = tuple(type(old.samples[0])(row["id"], old.samples[0].path, row["label"], row["sha256"]) for row in rows)
    fingerprint = Dataset(names[0], old.root, names, samples).fingerprint
    write_json(copy / "dataset.json", record | {"fingerprint": fingerprint, "samples": rows})
    parts = (tuple(ids[one] for one in part) for part in (pair.split.train, pair.split.val, pair.split.test))
    split = type(pair.split)(*parts, pair.split.seed)
    write_json(copy / "split.json", split.to_json())
    for arm in pair.runs:
        path = copy / arm / "predictions.parquet"
        table = read_table(path)
        write_table(table.set_column(0, "id", pa.array([ids[one] for one in table["id"].to_pylist()])), path)
        manifest = read_json(copy / arm / "manifest.json")
        manifest |= {"class_names": list(names), "data_name": names[0], "data_fingerprint": fingerprint,
                     "split_hash": split.hash}  # fmt: skip
        manifest["files"]["predictions.parquet"] = sha256_file(path)
        write_json(copy / arm / "manifest.json", manifest)
    return copy


def told(page: AppTest) -> list[str]:
    """Every text of a page that is drawn as Markdown, as it is sent to the browser."""
    elements = [*page.markdown, *page.caption, *page.error, *page.warning, *page.info, *page.table]
    return [str(getattr(element, "value", "")) + str(element.proto) for element in elements]


@pytest.mark.parametrize(
    "names", [(IMAGE, LINK), (SCRIPT, AUTOLINK), (FORMULA, LONG)], ids=["image, link", "script", "formula, long"]
)
def test_the_viewer_sends_hostile_names_as_text_and_never_as_markup(
    names: tuple[str, str], tiny_pair: MatchedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = renamed(tiny_pair, tmp_path, names)
    shown = False
    for view in view_names():
        page = start(monkeypatch, run, view)
        assert not page.exception and not page.error, view
        sent = told(page)
        shown |= any(literal(names[0]) in text or repr(literal(names[0]))[1:-1] in text for text in sent)
        assert not [text for text in sent for name in names if name in text and name != LONG], view
        drawn = "".join(str(element.proto) for element in page.get("html"))
        assert "img" not in drawn and "script" not in drawn, view
        for component in page.get("bidi_component"):  # names travel as data, never in what is run
            code = component.proto.js_content + component.proto.html_content + component.proto.css_content
            assert not [name for name in names if name in code], view
    assert shown


def test_a_link_finds_only_what_the_run_has(
    tiny_pair: MatchedPair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: list[str]
) -> None:
    link = {"sample": "../../../etc/passwd", "target": "class:'; DROP TABLE images; --", "class": IMAGE,
            "outcome": SCRIPT, "lang": "../en"}  # fmt: skip
    page = start(monkeypatch, tiny_pair.path, "inspect", **link)
    assert not page.exception and not page.error
    assert len(page.warning) == len(link)
    shown = [str(warning.value) for warning in page.warning]
    assert all(any(literal(value) in text for text in shown) for value in link.values())
    assert not [name for name in opened if "passwd" in name]
    assert panel(page)["sample"] in tiny_pair.vpt.predictions.ids


# Labels and texts of prompts


@pytest.mark.parametrize("text", [*HOSTILE, "a\nb", "a b", "../x", ""])
def test_such_a_name_is_no_name_tag_or_alias_of_a_prompt(
    text: str, prompts: PromptStore, tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    store = PromptStore(shutil.copytree(prompts.path, tmp_path / "prompts"))
    for call in (lambda: store.tag("line-3", text), lambda: store.alias("line-3", text), lambda: store.history(text),
                 lambda: store.add(tiny_pair.vpt, name=text, owner="q", purpose="p")):  # fmt: skip
        with pytest.raises(InputError):
            call()
    assert store.verify() == [] and store.names() == ["line-3"]


def test_control_characters_are_refused_where_texts_come_in(
    prompts: PromptStore, tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    store = PromptStore(shutil.copytree(prompts.path, tmp_path / "prompts"))
    for said in ({"owner": "q\x1b[2J", "purpose": "p"}, {"owner": "q", "purpose": "p\u202e"}):
        with pytest.raises(InputError, match="control characters"):
            store.add(tiny_pair.vpt, name="line-4", **said)
    with pytest.raises(InputError, match="control characters"):
        store.tag("line-3", "x", who="mei\x07")
    assert store.verify() == []
    folder = Path(push(prompts, "line-3", str(tmp_path / "pushed")))
    write_json(folder / "card.json", read_json(folder / "card.json") | {"purpose": "\x1b]0;title\x07"})
    with pytest.raises(IntegrityError, match="purpose holds control characters"):
        pull(store, str(folder))


def test_a_history_or_a_run_with_control_characters_is_refused(
    prompts: PromptStore, tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    store = PromptStore(shutil.copytree(prompts.path, tmp_path / "prompts"))
    history = read_json(store.path / "names" / "line-3.json")
    history["log"][0]["who"] = "\x1b[31mroot"
    write_json(store.path / "names" / "line-3.json", history)
    with pytest.raises(IntegrityError, match=r"log\.0\.who holds control characters"):
        store.history("line-3")
    copy = Path(shutil.copytree(tiny_pair.vpt.path, tmp_path / "run"))
    write_json(copy / "manifest.json", read_json(copy / "manifest.json") | {"class_names": ["left\x1b[2J", "right"]})
    with pytest.raises(IntegrityError, match=r"class_names\.0 holds control characters"):
        Run.load(copy)


def test_the_page_of_a_prompt_on_the_hub_shows_its_texts_literally(tiny_pair: MatchedPair, tmp_path: Path) -> None:
    store = PromptStore(tmp_path / "prompts")
    store.add(tiny_pair.vpt, name="line-3", owner=LINK, purpose=f"{IMAGE}\n---\nlicense: mit | # x")
    page = (Path(push(store, "line-3", str(tmp_path / "pushed"))) / "README.md").read_text(encoding="utf-8")
    body = page.split("---\n", 2)[2]
    assert IMAGE not in body and LINK not in body and "\n---" not in body
    assert r"\<img src='x' onerror='alert(1)'\>" in body and r"\[x\](javascript:alert(1))" in body


def test_texts_that_a_terminal_obeys_are_found_wherever_they_are() -> None:
    assert find_obeyed({"a": ["x", {"b": "y\x1b"}]}) == "a.1.b"
    assert find_obeyed({"a\u202e": 1}) and find_obeyed("\x9b") == "text"
    assert find_obeyed({"a": ["日本語 é \t\n", 1, None, True]}) is None


def test_names_of_files_never_reach_a_table_unescaped(tmp_path: Path) -> None:
    """Nothing writes CSV; what a data set records is JSON, in which a name is printable text."""
    data = Dataset("x", tmp_path, ("a", "b"), (), (Rejected(tmp_path / "a\u202e\x1b\n", "empty", "d"),))
    assert find_obeyed(data.manifest()) is None


def test_no_source_but_that_of_the_attachments_writes_csv() -> None:
    """There a cell that a spreadsheet would calculate begins with a quote."""
    writing = re.compile(r"csv\.(writer|DictWriter)|\.to_csv\(|write_csv")
    folder = Path(app.__file__).parents[1]
    sources = [path for room in ("explain", "app") for path in (folder / room).rglob("*.py")]
    found = [path.name for path in sources if writing.search(path.read_text(encoding="utf-8"))]
    assert found == ["attachments.py"]


Called = Callable[..., tuple[int, str]]


@pytest.mark.parametrize("name", ["[/red]", "[bold]x", "[link=x]y[-link]"])
def test_the_command_line_prints_markup_of_its_own_only(name: str, tmp_path: Path, explain: Called) -> None:
    code, said = explain("train", str(tmp_path / name))
    assert code == 2 and name in said.replace("\n", "")
