"""What it takes to make the report again, for the evidence."""

import hashlib

from explain.files import sha256_file
from explain.i18n import Translator
from explain.report.attachments import attachments_of
from explain.report.pdf import fonts
from explain.report.schema.evidence import Evidence
from explain.report.schema.reproducing import Attachment, Reproducing
from explain.report.schema.words import Named


def reproducing_of(evidence: Evidence, t: Translator) -> Reproducing:
    """Commands, environment and attachments; `evidence` is whole but for this, `software` is there."""
    attachments = tuple(
        Attachment(file=name, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content),
                   description=t(f"report.attachment.{name.split('.')[0].lower()}"))
        for name, content in attachments_of(evidence).items()
    )  # fmt: skip
    return Reproducing(
        commands=_commands(evidence), environment=environment(evidence.versions),
        software=evidence.reproducing.software, determinism=t("report.reproducing.determinism"),
        attachments=attachments,
    )  # fmt: skip


def environment(versions: dict[str, str]) -> tuple[Named, ...]:
    """What decides the bytes of the file: the typesetter, and the fonts as they lie here."""
    typesetter = (Named(name="typst", value=versions["typst"]),)
    return (*typesetter, *(Named(name=font.name, value=sha256_file(font)) for font in fonts()))


def _commands(evidence: Evidence) -> tuple[str, ...]:
    """In order; DATA and RUN stand for the reader's folders."""
    criteria = " --criteria criteria.yaml" if evidence.decision.declared == "before" else ""
    late = " --criteria criteria.yaml" if evidence.decision.declared == "after" else ""
    commands = [f"explain train DATA --out AGAIN --recipe RUN/recipe.json{criteria}"]
    commands += ["explain evaluate RUN"] if evidence.measured or evidence.disturbed else []
    commands += ["explain planted RUN"] if evidence.dissociation else []
    brief = " --brief" if evidence.length == "brief" else ""
    scale = "" if evidence.panels.scope == "map" else f" --scale {evidence.panels.scope}"
    commands.append(f"explain report RUN --out audit.pdf --lang {evidence.lang} --per-rule {evidence.panels.per_rule}"
                    f"{scale}{brief}{late}")  # fmt: skip
    return (*commands, "explain verify audit.pdf --run RUN")
