"""What people state: how the file is read, and where it is printed."""

import io
import re
from pathlib import Path

import pypdf
import pytest

from explain.errors import InputError
from explain.i18n import LANGUAGES, translate
from explain.report.audit import MOST, Audit, read_audit
from explain.report.content import gather
from explain.report.panels import Panels, draw_pictures
from explain.report.parts.declared import TERMS, control_of, glossary_of, history_of, operation_of, scope_of
from explain.report.pdf import render_pdf
from explain.training.pair import MatchedPair

WHOLE = """\
product: Woven cloth
line: 3
revision: B
owner: Quality
valid_until: 2027-06-30
prepared: {name: A. Sato, date: 2026-11-27}
approved: {name: C. Mori}
intended_use:
  task: |
    Find weaving faults
    before the cloth is rolled.
  users: Line staff.
  miss:
capture: One camera, ring light.
known_gaps: [No wet cloth, No night shift]
operation: {decides: The line lead., reaudit: A new camera.}
conditions: [Grey cloth only.]
override: {decision: conditional, name: B. Tanaka, reason: A trial on one line., date: 2026-11-28}
history:
  - {revision: A, date: 2026-10-01, who: A. Sato, what: First issue.}
"""


OVERRIDDEN = {lang: translate(lang)("report.decision.override").replace(" ", "") for lang in LANGUAGES}


def read(text: str, folder: Path) -> Audit:
    path = folder / "audit.yaml"
    path.write_text(text, encoding="utf-8")
    return read_audit(path)


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return read(WHOLE, tmp_path)


def test_a_whole_file_reads_as_what_it_says(audit: Audit) -> None:
    assert (audit.line, audit.valid_until, audit.known_gaps) == ("3", "2027-06-30", ("No wet cloth", "No night shift"))
    assert audit.intended_use.task == "Find weaving faults\nbefore the cloth is rolled.\n"
    assert (audit.prepared.date, audit.checked.name, audit.approved.name) == ("2026-11-27", "", "C. Mori")
    assert audit.override is not None and audit.override.decision == "conditional"
    assert audit.history[0].what == "First issue."


@pytest.mark.parametrize("text", ["", "product:\nprepared:\nhistory:\noverride:\nintended_use:\n  task:\n"])
def test_an_empty_file_states_nothing(text: str, tmp_path: Path) -> None:
    assert read(text, tmp_path) == Audit()


@pytest.mark.parametrize(("text", "words"), [
    ("\nprodukt: cloth", r"produkt \(line 2\).*Known fields: product"),
    ("override: {decision: approve, name: B}", r"override.reason.*Field required"),
    ("override: {decision: approve, reason: R}", r"override.name.*Field required"),
    ('override: {decision: approve, name: " ", reason: R}', r"override.name \(line 1\).*say something"),
    ("override: {decision: not_evaluated, name: B, reason: R}", r"override.decision \(line 1\)"),
    ("override: {decision: aprove, name: B, reason: R}", "'approve', 'conditional' or 'reject'"),
    ("a: 1\nrevision: 1.10", r"revision \(line 2\).*in quotes"),
    ("line: no", r"line \(line 1\).*in quotes"),
    ("product: 00123", "00123 would be read as 83; write it in quotes"),
    ("capture: [a]", r"capture \(line 1\).*valid string"),
    ("conditions: one", r"conditions \(line 1\)"),
    (f"capture: {'x' * 4001}", "at most 4000"),
    (f"owner: {'x' * 301}", "at most 300"),
    (f"known_gaps: [{'a, ' * (MOST + 1)}]", f"at most {MOST}"),
    ('operation: {drift: "a\\u202Eb"}', "operation.drift holds control characters"),
    ('history: [{who: "a\\e[2Jb"}]', "history.0.who holds control characters"),
    ("product: &a x\nline: *a", "alias"),
])  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)audit\.yaml.*" + words):
        read(text, tmp_path)


def test_a_file_that_is_missing_or_no_text_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="explain declare"):
        read_audit(tmp_path / "none.yaml")
    (tmp_path / "old.yaml").write_bytes("owner: Müller".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_audit(tmp_path / "old.yaml")


def test_a_long_note_is_taken_whole(tmp_path: Path) -> None:
    assert read(f"capture: {'光' * 4000}", tmp_path).capture == "光" * 4000


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_point_has_a_title_and_what_was_said(audit: Audit, lang: str) -> None:
    t = translate(lang)
    scope, operation = scope_of(audit, t), operation_of(audit, t)
    assert [one.name for one in scope] == ["task", "users", "out_of_scope", "miss", "overkill"]
    assert [one.text is None for one in scope] == [False, False, True, True, True]
    assert {one.name: one.text for one in operation} == {
        "decides": "The line lead.", "override": None, "drift": None, "reaudit": "A new camera."}  # fmt: skip
    titles = [one.title for one in (*scope, *operation)]
    assert len(set(titles)) == len(titles)


def test_control_and_history_are_what_was_stated(audit: Audit) -> None:
    control = control_of(audit)
    assert (control.product, control.revision, control.owner, control.valid_until) == (
        "Woven cloth", "B", "Quality", "2027-06-30")  # fmt: skip
    assert [(stamp.role, stamp.name, stamp.date) for stamp in control.stamps] == [
        ("prepared", "A. Sato", "2026-11-27"), ("checked", "", ""), ("approved", "C. Mori", "")]  # fmt: skip
    assert [(one.revision, one.who) for one in history_of(audit)] == [("A", "A. Sato")]
    assert control_of(Audit()).product == "" and history_of(Audit()) == ()


def test_the_glossary_names_each_term_in_both_languages() -> None:
    en, ja = glossary_of(translate("en")), glossary_of(translate("ja"))
    assert len(TERMS) >= 20 and len(set(TERMS)) == len(TERMS) == len(en)
    assert [(one.term, one.other) for one in en] == [(one.other, one.term) for one in ja]
    for one in (*en, *ja):
        assert one.meaning.rstrip().endswith((".", "。")) and one.term not in ("", one.meaning)
    assert all(re.search("[\u3040-\u30ff\u4e00-\u9fff]", one.meaning) for one in ja)


def shown(pair: MatchedPair, panels: Panels, audit: Audit, lang: str) -> str:
    content = render_pdf(gather(pair, panels, lang, audit=audit), draw_pictures(panels))
    return re.sub(r"\s+", "", "".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_pages_print_what_was_stated(
    fake_pair: MatchedPair, fake_panels: Panels, audit: Audit, lang: str
) -> None:
    text, t = shown(fake_pair, fake_panels, audit, lang), translate(lang)
    for said in ("Findweavingfaultsbeforetheclothisrolled.", "Linestaff.", "Thelinelead.", "Anewcamera.", "Firstissue.",
                 "Greyclothonly.", "Atrialononeline.", "C.Mori", "2027-06-30", "Nonightshift"):  # fmt: skip
        assert said in text, said
    assert OVERRIDDEN[lang] in text
    for term in glossary_of(t):
        assert re.sub(r"\s", "", term.meaning) in text, term.term


def test_the_pages_mark_what_nobody_stated(fake_pair: MatchedPair, fake_panels: Panels) -> None:
    text, t = shown(fake_pair, fake_panels, Audit(), "en"), translate("en")
    for one in (*scope_of(Audit(), t), *operation_of(Audit(), t)):
        assert re.sub(r"\s", "", f"{one.title}{t('term.not_evaluated')}") in text, one.title
    assert OVERRIDDEN["en"] not in text and "Nohistorywasstated." in text
