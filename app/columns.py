"""Columns: what the columns of the index are called and how their numbers are written, for people."""

from collections.abc import Iterable

from app.legend import format_measure
from app.opening import Opened
from app.words import percent
from explain.i18n import Translator
from explain.methods.base import METHODS

TEXTS = "viewer.gallery.column."
SHARES = ("confidence", "probability", "relevance_mass", "gap")


def label_of(column: str, opened: Opened, t: Translator) -> str:
    """A column's name, made of model, method and number: "Agreement, GradCAM, VPT – FT".

    Args:
        column: of the index; "" is the order of the data set.
        opened: whose models.
        t: texts.
    """
    if column in ("", "id", "gap"):
        return t(f"{TEXTS}{column or 'place'}")
    if column.startswith("agreement_"):
        for first, second in ((a, b) for a in opened.models for b in opened.models):
            pair = f"_{first}_{second}"
            if column.endswith(pair):
                method = column.removeprefix("agreement_").removesuffix(pair)
                names = f"{opened.label_of(first, t)} – {opened.label_of(second, t)}"
                return ", ".join((t(f"{TEXTS}agreement"), method_label(method), names))
    model = next((name for name in longest_first(opened.models) if column.startswith(f"{name}_")), None)
    if model is None:
        return column.replace("_", " ")
    rest = column.removeprefix(f"{model}_")
    words = [_number(rest, t)]
    for name in longest_first(METHODS):
        if rest.startswith(f"{name}_"):
            words = [_number(rest.removeprefix(f"{name}_"), t), method_label(name)]
            break
    return ", ".join((*words, opened.label_of(model, t)))


def _number(name: str, t: Translator) -> str:
    for key in (f"{TEXTS}{name}", f"term.measure.{name}", f"term.metric.{name}"):
        if key in t:
            words = t(key)
            return words[0].upper() + words[1:]
    return name.replace("_", " ")


def method_label(method: str) -> str:
    """A method's name for readers; its own where it is not registered here."""
    return METHODS[method].label if method in METHODS else method


def longest_first(names: Iterable[str]) -> list[str]:
    """Names so that "vpt_shallow" is tried before "vpt"."""
    return sorted(names, key=len, reverse=True)


def format_number(column: str, value: float | None) -> str:
    """A column's number as text; a dash where an image has none."""
    if value is None:
        return "–"
    if column.startswith("agreement_"):
        return f"{value:.2f}".replace("-", "\u2212")
    return percent(value) if column.endswith(SHARES) else format_measure(column, value)
