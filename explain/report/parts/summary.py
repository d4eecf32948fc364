"""What the first page says, how to read a map and what the report cannot tell, in sentences."""

from explain.i18n import Translator
from explain.metrics.statistics import largest_unseen_rate
from explain.render.heatmap import Scope
from explain.report.parts.answers import percent
from explain.report.schema.answers import PairedResult
from explain.report.schema.models import Arm
from explain.report.schema.panels import MethodSettings
from explain.report.schema.rates import Rates
from explain.report.schema.seeds import Seeds
from explain.training.pair import MatchedPair


def statements_of(
    pair: MatchedPair, arms: tuple[Arm, ...], difference: PairedResult, seeds: Seeds | None,
    rates: tuple[Rates, ...], t: Translator,
) -> tuple[str, ...]:  # fmt: skip
    """What is claimed on the first page."""
    vpt, ft = arms[0], arms[1]
    perfect = [arm for arm in arms if arm.accuracy == 1]
    return (
        t("report.statement.result", count=vpt.count, data=pair.data.name,
          vpt=percent(vpt.accuracy), ft=percent(ft.accuracy)),
        difference.statement,
        *(t("report.statement.all_alike", arm=arm.label, bound=percent(largest_unseen_rate(arm.count)))
          for arm in perfect),
        *(t("report.statement.rates", arm=arm.label, miss=percent(one.miss.value), overkill=percent(one.overkill.value))
          for arm, one in zip(arms, rates, strict=True)
          if arm.name in ("vpt", "ft") and one.miss is not None and one.overkill is not None),
        t("report.statement.cost", vpt_trained=f"{vpt.trained_parameters:,}", ft_trained=f"{ft.trained_parameters:,}",
          share=f"{100 * vpt.trained_parameters / ft.trained_parameters:.2f}"),
        seeds.statement if seeds else t("report.statement.one_training"),
    )  # fmt: skip


def reading_of(methods: tuple[MethodSettings, ...], scope: Scope, t: Translator) -> tuple[str, ...]:
    """How to read the maps of these methods."""
    lines = [t("report.reading.raw"), t("report.reading.scale", scope=t(f"term.scope.{scope}"))]
    groups = {
        "positive": [method.label for method in methods if method.picture == "positive"],
        "signed": [method.label for method in methods if method.picture == "signed"],
        "class_agnostic": [method.label for method in methods if not method.class_specific],
    }
    lines += [t(f"report.reading.{key}", labels=", ".join(labels)) for key, labels in groups.items() if labels]
    return (*lines, t("report.reading.completeness_gap"), t("report.reading.prompt_share"), t("report.reading.blank"))


def limitations_of(
    image_size: int, grid: tuple[int, int], seeds: Seeds | None, t: Translator, *, measured: bool
) -> tuple[str, ...]:  # fmt: skip
    """What the report cannot tell."""
    trainings = "few_trainings" if seeds else "one_training"
    plausible = "plausible_measured" if measured else "plausible"
    names = ("not_cause", plausible, "resolution", trainings, "data", "automation", "file")
    values: dict[str, dict[str, int]] = {
        "resolution": {"rows": grid[0], "columns": grid[1], "cell": round(image_size / grid[0])},
        "few_trainings": {"count": len(seeds.seeds) if seeds else 1},
    }
    return tuple(t(f"report.limitation.{name}", **values.get(name, {})) for name in names)
