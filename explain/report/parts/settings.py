"""How the methods were run and are drawn, for the evidence."""

from explain.attribution import Attribution
from explain.methods.base import METHODS
from explain.report.panels import ARMS, Panels
from explain.report.schema.panels import MethodSettings
from explain.report.schema.words import PerArm


def settings_of(name: str, panels: Panels) -> MethodSettings:
    """The settings of one method on both models."""
    method = METHODS[name]
    maps = {arm: panels.maps[arm][name] for arm in ARMS}
    settings = {arm: {**attribution.options, **_notes(attribution)} for arm, attribution in maps.items()}
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    options = []
    for key in keys:
        values = {arm: _plain(settings[arm].get(key)) for arm in ARMS}
        options.append(PerArm(name=key, values=values, equal=len(set(values.values())) == 1))
    height, width = maps[ARMS[0]].values.shape[1:]
    return MethodSettings(
        name=name, label=method.label, source=method.source, signed=method.signed,
        class_specific=method.class_specific, picture=method.picture, resolution=(height, width),
        pooled=(height, width) != panels.grid, options=tuple(options),
    )  # fmt: skip


def _notes(attribution: Attribution) -> dict[str, object]:
    """Choices the method made while running, such as the layer; the rest of the provenance is the same for all."""
    common = {"tuning", "tuning_options", "backbone", "device", "dtype", "batch_size", "elapsed_s", "versions"}
    return {key: value for key, value in attribution.provenance.items() if key not in common}


def _plain(value: object) -> str:
    return "\u2013" if value is None else str(value)
