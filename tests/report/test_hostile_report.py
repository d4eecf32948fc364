"""Hostile content in every text of a report: the build holds, the text is literal or replaced, and nothing acts."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pikepdf
import pytest
from fake_report import FakeReport, make_fake_report, text_of_pages, words_of

from explain.report.attachments import attachments_of
from explain.report.audit import Audit
from explain.report.opened import open_report
from explain.report.pdf import printable, render_pdf
from explain.report.schema.evidence import Evidence, Length, with_id

pypdf = pytest.importorskip("pypdf")

HOSTILE = {
    "typst": '#eval("panic()") #include "/etc/passwd" $x^2$ *b* _i_ @label <label> #pagebreak() \\ // /* ] } ) "',
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)> https://127.0.0.1/x mailto:a@b file:///etc/passwd",
    "pdf": ") Tj ET >> endobj 9 0 obj << /S /JavaScript /JS (app.alert(1)) >> endstream",
    "formula": "=cmd()|'C calc'!A0",
    "letters": "gpj.\u202eexe.\u2066a\u200bb\u00ad👩\u200d🔬🧵🇯🇵\U0001f9ff\ue000\U00013000\ufffe\u0378",
    "control": "a\x1b[2Jb\x07c\x00d\r\n\te" + "\u0301" * 50,
    "long": "x" * 10_000,
    "long, in words": "word " * 2_000,
    "long, without spaces": "布" * 3_000,
    "blank": " \u3000\u00a0 ",
}
ACTIONS = {"/JavaScript", "/JS", "/Launch", "/URI", "/GoToR", "/GoToE", "/SubmitForm", "/ImportData", "/ResetForm",
           "/OpenAction", "/AA", "/RichMedia", "/Rendition", "/Movie", "/Sound", "/XFA", "/AcroForm"}  # fmt: skip

KEPT = {
    ("lang",), ("length",), ("created",), ("format",), ("backbone",), ("versions",), ("files",), ("colours",), ("id",),
    ("decision", "declared"), ("decision", "computed"), ("decision", "final"), ("panels", "scope"),
}  # fmt: skip
"""What has a form of its own: a language, a time, a hash, a colour, or one of a few words."""

KEYS = {"arm", "first", "second", "file", "sha256", "method", "model", "name", "picture", "status", "comparison",
        "state", "role", "decision", "rule", "sections", "dash", "fingerprint", "split_hash", "missing", "verdict",
        "watched", "weights_sha256"}  # fmt: skip
"""Fields that other parts of the record refer to, where they are not names of people's own (see `FREE`)."""

FREE = {("data", "name"), ("data", "counts"), ("data", "total"), ("decision", "override"), ("data", "rejected"),
        ("panels", "samples"), ("control", "stamps")}  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> FakeReport:
    return make_fake_report(tmp_path_factory.mktemp("hostile") / "pair")


def replaced(value: Any, text: str, place: tuple[str, ...] = ()) -> Any:
    """A record with another text in every field that is text and nothing else."""
    if any(place[: len(kept)] == kept for kept in KEPT) or "measures" in place:
        return value
    if not text.strip() and place[-1:] in (("criteria_text",), ("alt",)):
        return value  # criteria are an attachment, and pictures have a description
    if isinstance(value, str):
        key, names = place[-1], any(place[: len(free)] == free for free in FREE)
        referred = key in KEYS and not (names and key in ("name", "file") and "picture" not in place
                                        and "input" not in place)  # fmt: skip
        return value if referred else text
    if isinstance(value, dict):
        return {key: replaced(item, text, (*place, key)) for key, item in value.items()}
    return [replaced(item, text, place) for item in value] if isinstance(value, list) else value


def hostile(evidence: Evidence, text: str) -> Evidence:
    return with_id(Evidence.model_validate(replaced(evidence.model_dump(mode="json"), text)))


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def names_in(pdf: pikepdf.Pdf) -> set[str]:
    """Every key and every name in every object of the file, reachable or not."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, pikepdf.Dictionary | pikepdf.Stream):
            for key in value.keys():  # noqa: SIM118 - a stream's own iteration is of its dictionary only in part
                found.add(str(key))
                if not value[key].is_indirect if hasattr(value[key], "is_indirect") else True:
                    walk(value[key])
        elif isinstance(value, pikepdf.Array):
            for item in value:
                if not getattr(item, "is_indirect", False):
                    walk(item)
        elif isinstance(value, pikepdf.Name):
            found.add(str(value))

    for item in (*pdf.objects, pdf.trailer):
        walk(item)
    return found


def check_inert(content: bytes, evidence: Evidence) -> None:
    """Nothing in the file acts or leads outside, and it carries its own attachments only, with their content."""
    with pikepdf.open(io.BytesIO(content)) as pdf:
        names = names_in(pdf)
        assert {"/StructTreeRoot", "/EmbeddedFiles", "/Type", "/Page"} <= names  # the walk saw the file
        assert names & ACTIONS == set()
        expected = attachments_of(evidence)
        assert set(pdf.attachments) == {"evidence.json", *expected}
        for name, data in expected.items():
            assert pdf.attachments[name].get_file().read_bytes() == data
        kinds = {str(link.get("/S", link.get("/Subtype"))) for link in annotations(pdf)}
        assert kinds <= {"/Link", "/GoTo"}
    opened = open_report(content)
    assert opened.evidence == evidence


def annotations(pdf: pikepdf.Pdf) -> Iterator[Any]:
    for page in pdf.pages:
        for annotation in page.get("/Annots", []):
            yield annotation
            if "/A" in annotation:
                yield annotation["/A"]


ACTS: dict[str, Callable[[pikepdf.Pdf], Any]] = {
    "/OpenAction": lambda pdf: pikepdf.Dictionary(S=pikepdf.Name.JavaScript, JS="app.alert(1)"),
    "/AA": lambda pdf: pikepdf.Dictionary(WC=pikepdf.Dictionary(S=pikepdf.Name.Launch)),
    "/Elsewhere": lambda pdf: pdf.make_indirect(pikepdf.Dictionary(S=pikepdf.Name.URI, URI="http://127.0.0.1")),
}


@pytest.mark.parametrize("key", ACTS)
def test_the_check_finds_what_it_looks_for(report: FakeReport, key: str) -> None:
    evidence, stream = report.evidence("en", "brief"), io.BytesIO()
    content = render_pdf(evidence, report.pictures)
    check_inert(content, evidence)
    with pikepdf.open(io.BytesIO(content)) as pdf:
        pdf.Root[key] = ACTS[key](pdf)
        pdf.save(stream)
    with pytest.raises(AssertionError):
        check_inert(stream.getvalue(), evidence)


def test_the_test_reaches_the_texts_of_every_section(report: FakeReport) -> None:
    changed = replaced(report.evidence().model_dump(mode="json"), "HOSTILE")
    reached = {key for key, value in changed.items() if "HOSTILE" in texts(value)}
    assert reached >= {
        "title", "statements", "control", "decision", "scope", "matched", "config", "arms", "difference",
        "good_classes", "slices", "data", "methods", "panels", "bars", "measured", "dissociation", "failures",
        "disturbed", "reading", "limitations", "operation", "reproducing", "crosswalk", "history", "glossary",
    }  # fmt: skip


QUICK = ("markup", "control")
"""Kinds that every run tries on all sections; the others are tried on the two pages, and on all by make test-slow."""


@pytest.mark.parametrize(
    ("length", "kind"),
    [*(("brief", kind) for kind in HOSTILE),
     *(pytest.param("full", kind, marks=[] if kind in QUICK else pytest.mark.slow) for kind in HOSTILE)],
)  # fmt: skip
def test_any_text_in_every_field_is_printed_literally_and_does_nothing(
    report: FakeReport, kind: str, length: Length
) -> None:
    text = HOSTILE[kind][: 400 if length == "brief" else 80]  # of hundreds of fields; longer ones are below
    evidence = hostile(report.evidence("en", length), text)
    content = render_pdf(evidence, report.pictures)
    check_inert(content, evidence)
    shown = "".join(text_of_pages(pypdf.PdfReader(io.BytesIO(content))))
    assert words_of(printable(text))[:30] in shown
    assert "root:x:0" not in shown


@pytest.mark.parametrize(
    ("lang", "kind"),
    [("en", "long"), ("ja", "long, without spaces"), ("ja", "long, in words")],
)  # fmt: skip
def test_what_people_may_write_is_printed_whatever_its_length(report: FakeReport, lang: str, kind: str) -> None:
    text = HOSTILE[kind][:4_000]
    audit = Audit.model_validate({
        "product": text[:200], "intended_use": {"task": text, "miss": text}, "capture": text, "known_gaps": [text],
        "operation": {"decides": text}, "conditions": [text],
        "override": {"decision": "reject", "name": text[:200], "reason": text, "date": "2026-05-01"},
    })  # fmt: skip
    evidence = report.evidence(lang, audit=audit)
    content = render_pdf(evidence, report.pictures)
    check_inert(content, evidence)
    shown = "".join(text_of_pages(pypdf.PdfReader(io.BytesIO(content))))
    assert words_of(text)[:60] in shown


def test_evidence_keeps_what_the_page_cannot_draw(report: FakeReport) -> None:
    text = HOSTILE["letters"]
    evidence = hostile(report.evidence("ja", "brief"), text)
    content = render_pdf(evidence, report.pictures)
    with pikepdf.open(io.BytesIO(content)) as pdf:
        kept = json.loads(pdf.attachments["evidence.json"].get_file().read_bytes())
    assert kept["data"]["source"] == text
    shown = "".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages)
    assert not {"\u202e", "\u2066", "\u200b", "\u00ad"} & set(shown) and "\ufffd" in shown
