"""The PDF is read back: every number is in its text, the evidence is attached, and a rebuild gives the same bytes."""

import io
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pypdf
import pytest
from fake_pair import make_fake_pair
from fake_report import with_arms
from pydantic import ValidationError

from explain.attribution import Attribution
from explain.errors import ExplainError, InputError, IntegrityError, UnknownNameError
from explain.files import write_json
from explain.i18n import translate
from explain.report import pdf
from explain.report.content import gather
from explain.report.panels import Panels, draw_pictures
from explain.report.pdf import MISSING, printable, render_pdf
from explain.report.schema.evidence import COMMANDS, Evidence, evidence_id
from explain.report.write import open_pair, write_report
from explain.training.pair import MATCHED_FIELDS, MatchedPair

EN = translate("en")


@pytest.fixture(scope="module")
def evidence(fake_pair: MatchedPair, fake_panels: Panels) -> Evidence:
    return gather(fake_pair, fake_panels, "en")


@pytest.fixture(scope="module")
def jpegs(fake_panels: Panels) -> dict[str, bytes]:
    return draw_pictures(fake_panels)


@pytest.fixture(scope="module")
def reader(evidence: Evidence, jpegs: dict[str, bytes]) -> pypdf.PdfReader:
    return pypdf.PdfReader(io.BytesIO(render_pdf(evidence, jpegs)))


def text_of(reader: pypdf.PdfReader) -> str:
    """The whole text on one line, because a page breaks lines where it likes."""
    return re.sub(r"\s+", " ", " ".join(page.extract_text() for page in reader.pages))


def fixed(value: float, digits: int) -> str:
    """Half away from zero, as the page rounds, with a true minus sign."""
    return str(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)).replace("-", "\u2212")


def percent(value: float) -> str:
    return fixed(100 * value, 1)


def significant(value: float) -> str:
    """Three digits, as the page shows raw values."""
    return "0" if value == 0 else f"{value:.3g}".replace("-", "\u2212")


def test_every_number_of_the_tables_is_in_the_text(reader: pypdf.PdfReader, evidence: Evidence) -> None:
    text = text_of(reader)
    expected = [percent(evidence.difference.mean), percent(evidence.difference.low), percent(evidence.difference.high)]
    for arm in evidence.arms:
        expected += [f"{arm.trained_parameters:,}", f"{arm.total_parameters:,}", fixed(arm.weights_bytes / 1e6, 2),
                     fixed(arm.seconds_per_epoch, 2), fixed(arm.peak_mib, 0), percent(arm.accuracy), percent(arm.low),
                     percent(arm.high), str(arm.count), fixed(arm.loss, 3)]  # fmt: skip
        for trial in arm.training.trials:
            row = f"{trial.epochs} {trial.steps} {percent(trial.val_accuracy)} {fixed(trial.val_loss, 3)}"
            expected.append(f"{row} {fixed(trial.seconds, 1)}{' Chosen' if trial.chosen else ''}")
        expected += [arm.training.sentence, arm.calibration.sentence]
        it = arm.calibration
        numbers = [it.confidence, arm.accuracy, it.error, it.low, it.high, it.floor, it.adaptive]
        expected.append("{} {} {} {} to {} {} {}".format(*map(percent, numbers)))
        budget = arm.training.trial_steps, arm.training.steps, arm.training.trial_steps + arm.training.steps
        seconds = fixed(arm.training.search_seconds, 1), fixed(arm.training.seconds, 1)
        expected.append(" ".join(map(str, (len(arm.training.trials), *budget, *seconds))))
        for recall in arm.recalls:
            expected += [recall.name, f"{percent(recall.recall)} ({percent(recall.low)} to {percent(recall.high)})"]
        expected += [" ".join(map(str, row)) for row in arm.confusion]
    rows = {"points": lambda it: percent(it.accuracy_gap), "nats": lambda it: fixed(it.loss_gap, 3),
            "epoch": lambda it: str(it.turning_epoch or "never"), "kJ": lambda it: fixed(it.energy_j / 1000, 2)}
    for end, value in rows.items():
        expected.append(f"{end} " + " ".join(value(arm.training) for arm in evidence.arms))
    expected.append(evidence.difference.test_statement)
    for row in evidence.data.counts:
        expected.append(f"{row.name} {row.train} {row.val} {row.test} {row.unused} {row.total}")
    for rule in evidence.panels.rules:
        expected.append(f"{rule.matched} {rule.shown}")
    for field in evidence.matched:
        expected.append(field.name)
    for file in evidence.files:
        expected.append(file.value)
    assert [entry for entry in expected if entry not in text] == []


def test_every_raw_range_and_answer_of_the_panels_is_in_the_text(reader: pypdf.PdfReader, evidence: Evidence) -> None:
    text = text_of(reader)
    for sample in evidence.panels.samples:
        assert sample.id in text
        for answer in sample.answers:
            assert f"{answer.name} {percent(answer.probability)} %" in text
    numbers = {
        round(float(match.replace("\u2212", "-")), 12)
        for match in re.findall(r"\u2212?\d+(?:\.\d+)?(?:e\u2212?\d+)?", text)
    }
    for sample in evidence.panels.samples:
        for entry in sample.maps:
            for value in (entry.raw_low, entry.raw_high):
                close = [number for number in numbers if number == pytest.approx(value, rel=6e-3)]
                assert close, (sample.id, entry.method, value)


@pytest.mark.parametrize(
    ("rate", "shown"), [(0.03, "0.03"), (0.001, "0.001"), (0.0003, "3e\u22124"), (1e-5, "1e\u22125")]
)
def test_learning_rates_are_short(reader: pypdf.PdfReader, rate: float, shown: str) -> None:
    assert re.search(rf"(?<![\d.]){re.escape(shown)}(?![\d.])", text_of(reader)), rate


def test_claims_limits_and_gaps_are_printed(reader: pypdf.PdfReader, evidence: Evidence) -> None:
    text = text_of(reader)
    for sentence in (*evidence.statements, *evidence.reading, *evidence.limitations):
        assert re.sub(r"\s+", " ", sentence) in text
    assert len(evidence.not_evaluated) == 10
    section = text[text.rindex("14 Limitations") : text.rindex("15 Operation")]
    for name in evidence.not_evaluated:
        row = f"{EN(f'report.missing.{name}.title')} {EN(f'report.missing.{name}.what')} "
        row += f"{EN('report.missing.command', command=COMMANDS[name])} " if name in COMMANDS else ""
        assert f"{row}not evaluated" in section
    assert f"Page 1 of {len(reader.pages)}" in text and f"Document {evidence.id}" in text


def test_the_attached_evidence_is_the_evidence(reader: pypdf.PdfReader, evidence: Evidence) -> None:
    (content,) = reader.attachments["evidence.json"]
    assert Evidence.model_validate_json(content) == evidence
    files = [file.get_object() for file in reader.trailer["/Root"]["/AF"]]
    assert {str(file["/UF"]): file["/AFRelationship"] for file in files}["evidence.json"] == "/Data"


def test_the_file_claims_archive_and_accessibility(reader: pypdf.PdfReader, evidence: Evidence) -> None:
    root = reader.trailer["/Root"]
    xmp = root["/Metadata"].get_object().get_data().decode()
    assert "<pdfaid:part>3</pdfaid:part>" in xmp and "<pdfaid:conformance>A</pdfaid:conformance>" in xmp
    assert "<pdfuaid:part>1</pdfuaid:part>" in xmp
    assert root["/Lang"] == "en-GB" and "/StructTreeRoot" in root
    assert reader.metadata is not None and reader.metadata.title == evidence.title


def test_every_picture_has_its_description(evidence: Evidence, reader: pypdf.PdfReader) -> None:
    alts: list[str] = []
    pending = [reader.trailer["/Root"]["/StructTreeRoot"]]
    while pending:
        node = pending.pop().get_object()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            alts += [str(node["/Alt"])] if "/Alt" in node else []
            pending += [node["/K"]] if "/K" in node else []
    for sample in evidence.panels.samples:
        for picture in (sample.input, *(entry.picture for entry in sample.maps)):
            assert picture.alt in alts
    assert any(alt.startswith("Accuracy with 95 % interval. VPT:") for alt in alts)


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_rebuild_gives_the_same_bytes(fake_pair: MatchedPair, tmp_path: Path, lang: str) -> None:
    first = write_report(fake_pair, tmp_path / "a.pdf", lang)
    second = write_report(fake_pair.path, str(tmp_path / "elsewhere" / "b.pdf"), lang)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 2_000_000


def test_japanese_pages_are_japanese(fake_pair: MatchedPair, fake_panels: Panels, jpegs: dict[str, bytes]) -> None:
    reader = pypdf.PdfReader(io.BytesIO(render_pdf(gather(fake_pair, fake_panels, "ja"), jpegs)))
    text = re.sub(r"\s+", "", text_of(reader))
    assert reader.trailer["/Root"]["/Lang"] == "ja-JP"
    for word in ("同一条件学習の証跡", "ヒートマップ", "未評価", "作成", "確認", "承認", "正解率"):
        assert word in text


def test_invisible_and_unknown_characters_become_visible() -> None:
    assert printable("a\u202eb\u0007c\ue000 한\nÄ") == f"a{MISSING}b{MISSING}c{MISSING} {MISSING} Ä"
    assert printable({"k\u200b": ["x", 1, None]}) == {f"k{MISSING}": ["x", 1, None]}


def test_long_and_many_names_still_fit(evidence: Evidence, jpegs: dict[str, bytes]) -> None:
    record = evidence.model_dump(mode="json") | {"id": ""}
    names = [f"a-very-long-class-name-without-a-break-{n}" * 3 for n in range(12)]
    record["data"]["class_names"] = names
    record["data"]["counts"] = [dict(record["data"]["counts"][0], name=name) for name in names]
    record["data"]["rejected"] = [{"file": "f" * 300, "reason": "truncated", "detail": "d" * 200}] * 60
    for arm in record["arms"]:
        arm["recalls"] = [dict(arm["recalls"][0], name=name) for name in names]
        arm["confusion"] = np.eye(12, dtype=int).tolist()
    changed = Evidence.model_validate(record)
    text = text_of(
        pypdf.PdfReader(io.BytesIO(render_pdf(changed.model_copy(update={"id": evidence_id(changed)}), jpegs)))
    )
    assert "and 40 more" in text and "12 classes do not fit" in text


def rebuilt(record: dict[str, Any], jpegs: dict[str, bytes]) -> str:
    """The text of a changed record's page."""
    changed = Evidence.model_validate(record | {"id": ""})
    changed = changed.model_copy(update={"id": evidence_id(changed)})
    return text_of(pypdf.PdfReader(io.BytesIO(render_pdf(changed, jpegs))))


def test_seeds_are_printed_with_their_verdict(tmp_path: Path) -> None:
    pairs = [make_fake_pair(tmp_path / f"seed{seed}", seed=seed) for seed in range(3)]
    panels = Panels.load(pairs[0].path)
    evidence = gather(pairs[0], panels, "en")
    text = text_of(pypdf.PdfReader(io.BytesIO(render_pdf(evidence, draw_pictures(panels)))))
    seeds = evidence.seeds
    assert seeds is not None and "Over 3 seeds" in text and seeds.statement in text
    for index, seed in enumerate(seeds.seeds):
        accuracies = " ".join(percent(arm.accuracies[index]) for arm in seeds.arms)
        assert f"{seed} {accuracies} {percent(seeds.per_seed[index])}" in text
    assert "Mean " + " ".join(percent(entry.mean) for entry in (*seeds.arms, seeds)) in text
    assert seeds.both_low is not None and seeds.both_high is not None
    assert f"drawn again together: {percent(seeds.both_low)} to {percent(seeds.both_high)} points" in text
    write_json(tmp_path / "study.json", {"seeds": [2, 0, 1], "arms": list(pairs[0].runs)})
    assert open_pair(tmp_path).vpt.manifest.seed == 2  # a study stands for its first seed


def test_what_was_not_recorded_is_said_and_not_drawn(evidence: Evidence, jpegs: dict[str, bytes]) -> None:
    record = evidence.model_dump(mode="json")
    for arm in record["arms"]:
        arm["training"] |= {"watched": None, "accuracy_gap": None, "loss_gap": None, "turning_epoch": None,
                            "energy_j": None}  # fmt: skip
        for epoch in arm["training"]["epochs"]:
            epoch |= {"val_loss": None, "val_accuracy": None, "test_loss": None, "test_accuracy": None}
    assert rebuilt(record, jpegs).count("not recorded") == 4 * 3


@pytest.mark.parametrize("arms", [1, 2])
def test_one_epoch_and_many_arms_are_typeset(evidence: Evidence, jpegs: dict[str, bytes], arms: int) -> None:
    record = with_arms(evidence, [f"Arm {n}" for n in range(arms)]).model_dump(mode="json")
    for arm in record["arms"]:
        arm["training"]["epochs"] = arm["training"]["epochs"][:1]
    text = rebuilt(record, jpegs)
    cover = text.split("2 Decision")[0]
    assert f"Arm {arms - 1}" in text and "Page 1 of" in cover and cover.count("Page") == 1  # the cover is one page


def test_unequal_budgets_and_fields_set_apart_are_said_aloud(evidence: Evidence, jpegs: dict[str, bytes]) -> None:
    record = evidence.model_dump(mode="json") | {"same_budget": False}
    record["matched"][0] |= {"equal": False, "set_apart": True, "values": {"vpt": "5", "ft": "64"}}
    text = rebuilt(record, jpegs)
    assert "NOT given the same" in text and "none is the better one" not in text
    assert "1 set apart by the protocol" in text and "vpt: 5; ft: 64" in text


def test_a_report_without_panels_or_rejected_files_is_typeset(evidence: Evidence, jpegs: dict[str, bytes]) -> None:
    record = evidence.model_dump(mode="json") | {"id": ""}
    record["panels"]["samples"] = []
    record["data"]["rejected"] = []
    record["failures"]["rows"] = [row | {"panel": None} for row in record["failures"]["rows"]]
    bars = {name: content for name, content in jpegs.items() if name.startswith("bar.")}
    text = rebuilt(record, bars)
    assert "No test image was chosen" in text and "Every file could be used" in text


def test_changed_evidence_and_pictures_are_refused(evidence: Evidence, jpegs: dict[str, bytes]) -> None:
    with pytest.raises(IntegrityError, match="id"):
        render_pdf(evidence.model_copy(update={"title": "another"}), jpegs)
    with pytest.raises(IntegrityError, match="000.jpg"):
        render_pdf(evidence, jpegs | {"000.jpg": b"other"})
    with pytest.raises(IntegrityError):
        render_pdf(evidence, {})


def test_a_refusing_typesetter_is_an_error_with_a_hint(
    evidence: Evidence, jpegs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> bytes:
        error = pdf.typst.TypstError("no room")
        error.message, error.hints = "no room", ["use less ink"]
        raise error

    monkeypatch.setattr(pdf.typst, "compile", refuse)
    with pytest.raises(ExplainError, match="no room .*use less ink"):
        render_pdf(evidence, jpegs)


def test_wrong_requests_say_what_to_do(fake_pair: MatchedPair, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two runs"):
        write_report(fake_pair.vpt, tmp_path / "a.pdf")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="single run"):
        write_report(fake_pair.path / "vpt", tmp_path / "a.pdf")
    with pytest.raises(InputError, match=".pdf"):
        write_report(fake_pair, tmp_path / "a.docx")
    with pytest.raises(UnknownNameError, match="de"):
        write_report(fake_pair, tmp_path / "a.pdf", "de")
    with pytest.raises(IntegrityError):
        write_report(tmp_path / "nowhere", tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []


def test_a_trained_pair_gets_its_report(tiny_pair: MatchedPair, tmp_path: Path) -> None:
    text = text_of(pypdf.PdfReader(write_report(tiny_pair, tmp_path / "report.pdf")))
    assert f"{len(MATCHED_FIELDS)} of {len(MATCHED_FIELDS)} fields equal" in text and "Integrated Gradients" in text
    assert (tiny_pair.path / "maps" / "panels.json").is_file()


def test_a_new_scope_is_another_picture_and_says_so(tmp_path: Path) -> None:
    pair = make_fake_pair(tmp_path / "pair", per_class=15)
    text = text_of(pypdf.PdfReader(write_report(pair, tmp_path / "a.pdf", scope="dataset")))
    assert "shared over the data set" in text
    assert isinstance(Panels.load(pair.path).maps["vpt"]["grad_cam"], Attribution)


@pytest.mark.parametrize("name", ["fonts", "..", "", "shown.json", "report.typ", "evidence.json", "a/b.jpg", "/x.jpg",
                                  "../x.jpg", "x\0.jpg", "a" * 300 + ".jpg", "x.jpg\n", ".jpg"])  # fmt: skip
def test_a_picture_is_a_file_of_its_own_beside_the_page(evidence: Evidence, name: str) -> None:
    record = evidence.model_dump(mode="json") | {"id": ""}
    record["panels"]["samples"][0]["input"]["file"] = name
    with pytest.raises(ValidationError, match="file"):
        Evidence.model_validate(record)
