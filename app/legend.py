"""What is said of a map in words: its raw range, what it cannot say, and what the method measured beside it."""

from app.words import percent
from explain.attribution import Attribution
from explain.i18n import Translator, placeholders
from explain.methods.base import METHODS
from explain.render.heatmap import format_value


def describe(found: Attribution, t: Translator) -> list[str]:
    """The lines under a map, of a batch of one."""
    values = found.values
    low, high = format_value(float(values.min())), format_value(float(values.max()))
    lines = [t("viewer.raw", low=low, high=high)]
    if not METHODS[found.method].class_specific:
        lines.append(t("term.class_agnostic"))
    return lines + describe_measures(found, t)


def describe_measures(found: Attribution, t: Translator) -> list[str]:
    """What a method measured, in words: every text of the catalogue whose values it has."""
    known = {name: value for name, value in found.options.items() if isinstance(value, str)}
    numbers = {name: float(values[0]) for name, values in found.extras.items() if values.ndim == 1}
    lines = []
    for name, text in t.section("viewer.measure.").items():
        wanted = placeholders(text)
        used = [numbers[key] for key in wanted if key in numbers]
        if wanted <= known.keys() | numbers.keys() and any(used):  # all zero: the model has no such tokens
            values = {key: known.get(key) or format_measure(key, numbers[key]) for key in wanted}
            lines.append(t(f"viewer.measure.{name}", **values))
    if numbers.get("converged", 1.0) == 0:
        lines.append(t("viewer.not_converged"))
    return lines


def format_measure(name: str, value: float) -> str:
    """A measurement as text: shares and gaps in percent, counts as whole numbers."""
    if name.endswith(("_share", "_null", "_gap")):
        return percent(value)
    return f"{value:.0f}" if value == int(value) else format_value(value)
