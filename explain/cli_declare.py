"""The command `explain declare`: files to begin with, for what a model must fulfil and what people say of it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from explain.console import console
from explain.criteria import EVALUATED, METRICS, PATTERNS
from explain.criteria import FILE as CRITERIA
from explain.data.names import printable
from explain.errors import InputError

WIDTH = 32
"""Letters to the comments behind a field or a metric."""

ENDS = ("study.json", "manifest.json")
"""Files that are written when a training ends."""

HEAD = """\
# What a model must fulfil, decided before it is trained:
#
#     explain train DATA --criteria criteria.yaml
#
# checks this file, copies it into the run and writes its SHA-256 into every model's manifest before the first step. A
# run that was trained without is held against it by `explain report RUN --criteria criteria.yaml`; its decision is then
# conditional at best. The numbers below are examples, not advice: replace them by yours.
#
# A criterion is METRIC, one of >= <= > <, and a number, plain or in percent. What counts is not the measured value but
# the end of its 95 % interval: the lower end for >= and >, the upper end for <= and <. With few test images intervals
# are wide; none of 100 images missed means at most 3.7 % missed. What nobody measured is not met.
#
# All met: approve. A required one not met: reject. Only others not met: conditional.
"""

AUDIT = """\
# What people state for the audit report; no program can know it. Every field may stay empty: it is then printed as "not
# evaluated". Put this file into the folder of the run, or give it to `explain report RUN --audit audit.yaml`. Long text
# goes behind a | on lines of its own, set in by two spaces. Write numbers such as "007" or "1.10" in quotes.

product: ""                     # what is inspected
line: ""                        # where
revision: ""                    # of this document
owner: ""                       # who answers for the model in use
valid_until: ""                 # day on which the decision expires, such as 2027-06-30

prepared: {name: "", date: ""}
checked: {name: "", date: ""}
approved: {name: "", date: ""}

intended_use:
  task: ""                      # what the model decides, on which images
  users: ""                     # who works with its answers
  out_of_scope: ""              # what it must not be used for
  miss: ""                      # what a missed defect leads to
  overkill: ""                  # what a good piece that is thrown out leads to

capture: ""                     # camera, light, distance, resolution, period
known_gaps: []                  # what the images do not cover: [one, another]

operation:
  decides: ""                   # who has the last word on a piece
  override: ""                  # when a person decides against the model
  drift: ""                     # what would show that the images have changed
  reaudit: ""                   # what makes this report out of date

conditions: []                  # what has to be done or kept for the decision to hold: [one, another]

# A person may decide otherwise than the criteria; both decisions are printed. Name and reason are needed:
#
# override:
#   decision: conditional     # approve, conditional or reject
#   name: B. Tanaka
#   reason: A trial on one line, with a second look at every piece.
#   date: 2026-11-27

# Earlier revisions of the document:
#
# history:
#   - {revision: A, date: 2026-10-01, who: A. Sato, what: First issue}
"""


def declare(
    folder: Annotated[Path, typer.Argument(help="Where the files go: any folder, or a trained run, which gets "
                                                "audit.yaml alone.")] = Path("."),
    classes: Annotated[str | None, typer.Option(help="Classes of your images, such as nominal,scratch,stain: named in "
                                                     "the file, one criterion for each.")] = None,
    good: Annotated[str | None, typer.Option(help="Those of them that are no defect, such as nominal: miss rate and "
                                                  "overkill rate need to know.")] = None,
    model: Annotated[str, typer.Option(help="Arm that is decided on.")] = "vpt",
) -> None:  # fmt: skip
    """Write criteria.yaml and audit.yaml to begin with; files that are there stay as they are.

    criteria.yaml says what a model must fulfil, one line each, such as "recall of scratch >= 95 %". Fill it in before
    you train and give it to `explain train DATA --criteria criteria.yaml`: the report then decides by it. The file
    lists every metric.

    audit.yaml holds what people have to say: product, owner, intended use, who decides, who signed. Fill it in before
    `explain report`.
    """
    names, good_names = _listed(classes), _listed(good)
    unknown = [name for name in good_names if name not in names]
    if names and unknown:
        raise InputError(f"expected --good to name some of the classes {', '.join(names)}, got {', '.join(unknown)}")
    trained = any(folder.glob("*/manifest.json")) or any((folder / name).is_file() for name in ENDS)
    if trained:
        console.print(f"{folder} is trained already: a {CRITERIA} that is put there now would be no declaration. Write "
                      f"it elsewhere and give it to explain report {folder} --criteria {CRITERIA}",
                      highlight=False, soft_wrap=True)  # fmt: skip
    else:
        _write(folder / CRITERIA, starter_criteria(names, good_names, model))
    _write(folder / "audit.yaml", AUDIT)
    if not trained:
        console.print(f"next: fill in both, then explain train DATA --criteria {folder / CRITERIA}", highlight=False,
                      soft_wrap=True)  # fmt: skip


def starter_criteria(classes: list[str], good: list[str], model: str) -> str:
    """A file of criteria to begin with.

    Args:
        classes: of the images; empty where they are not known.
        good: those that are no defect.
        model: arm that is decided on.
    """
    lines = [
        HEAD,
        _field(f"model: {_quoted(model)}", "the arm that is decided on, such as vpt or ft"),
        _field(f"good_classes: [{', '.join(map(_quoted, good))}]",
               "classes that are no defect" + (f", of {printable(', '.join(classes))}" if classes else "")),
        _field('declared_by: ""', "who answers for these criteria"),
        _field('declared_on: ""', "on which day, such as 2026-11-27"),
        "criteria:",
        "  - accuracy >= 90 %",
    ]  # fmt: skip
    rates = ["  - criterion: miss rate <= 5 %", "    why: a missed defect reaches the customer",
             "  - overkill rate <= 10 %"]  # fmt: skip
    lines += rates if good else [f"#{line}" for line in rates]
    lines += [f"  - {_quoted(f'recall of {name} >= 80 %')}" for name in classes]
    lines += [
        "  - leaked images <= 0",
        "  - criterion: gain of integrated_gradients >= 0",
        "    required: false",
        "    why: its maps should point at what the model uses",
        "",
        "# Metrics:",
        *_listing(METRICS),
        *_listing({f"{beginning}{what.partition(': ')[0]}": what.partition(": ")[2]
                   for beginning, what in PATTERNS.items()}),
        "#",
        "# and what `explain evaluate` measures of a method's maps; `explain methods` lists the methods:",
        *_listing({f"{name} of METHOD": what for name, what in EVALUATED.items()}),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _field(text: str, comment: str) -> str:
    return f"{text:{WIDTH}}# {comment}" if len(text) < WIDTH else f"{text}  # {comment}"


def _listing(metrics: dict[str, str]) -> list[str]:
    return [f"#   {name:{WIDTH}}{what}" for name, what in metrics.items()]


def _listed(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _quoted(text: str) -> str:
    """A text as YAML reads it back, whatever it holds: JSON's form, where it needs one."""
    plain = text.replace(" ", "").replace("_", "").isalnum() and text.strip() == text and text[0].isalpha()
    return text if plain and text.lower() not in WORDS else json.dumps(text, ensure_ascii=False)


def _write(path: Path, text: str) -> None:
    """Make a file unless it is there."""
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not there:
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
    except OSError as error:
        raise InputError(f"nothing can be written in {path.parent} ({error.strerror}); choose another folder") from None
    console.print(f"{'kept' if there else 'written':8} {path}", highlight=False, soft_wrap=True)


WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}
"""What YAML reads as something else than text."""
