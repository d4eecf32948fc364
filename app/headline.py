"""Headline: the result of a comparison in one sentence, and what it rests on, in Markdown."""

from dataclasses import dataclass

from app.answers import Answers
from app.index import Query
from app.opening import Opened
from app.words import literal, percent
from explain.i18n import Translator
from explain.training.pair import MatchedPair, compare_runs

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Headline:
    """The result, and the numbers behind it, line by line."""

    title: str
    why: tuple[str, ...] = ()


def headline_of(t: Translator, opened: Opened, answers: Answers) -> Headline:
    """Which of the two compared models is better; "no difference shown" is a result too."""
    first, second = opened.compared
    names = {"first": literal(opened.label_of(first, t)), "second": literal(opened.label_of(second, t))}
    if not answers.count:
        return _unlabelled(t, opened, names)
    if first == second:
        share = percent(answers.rates[first].share)
        return Headline(t("viewer.overview.single", first=names["first"], share=share))
    found = answers.difference(first, second)
    values = {"mean": points(found.mean), "low": points(found.low), "high": points(found.high)}
    why = t(f"viewer.overview.{'open' if found.tie else 'clear'}_why", count=f"{answers.count:,}", **names, **values)
    reasons = (why, _disagreements(t, answers, first, second, names))
    if found.tie:
        return Headline(t("viewer.overview.open", **names), reasons)
    better, other = ("first", "second") if found.mean > 0 else ("second", "first")
    title = t("viewer.overview.better", better=names[better], other=names[other], points=points(abs(found.mean)))
    return Headline(title, reasons)


def _unlabelled(t: Translator, opened: Opened, names: dict[str, str]) -> Headline:
    """What can be said of images whose true classes are not known."""
    differing = len(opened.index.find(Query("disagree"))) if opened.compared[0] != opened.compared[1] else 0
    count = opened.index.count
    title = t("viewer.overview.unlabelled", share=percent(1 - differing / count), **names)
    return Headline(title, (t("viewer.overview.unlabelled_why", count=f"{count:,}"),))


def _disagreements(t: Translator, answers: Answers, first: str, second: str, names: dict[str, str]) -> str:
    """Whether the images that only one model got right are shared more unevenly than by chance."""
    test = answers.test(first, second)
    p = "< 0.001" if test.p_value < 0.001 else f"= {test.p_value:.3f}"
    words = t(f"viewer.overview.{'beyond_chance' if test.p_value < SIGNIFICANT else 'chance'}")
    return t("viewer.overview.mcnemar", only_first=f"{test.b:,}", only_second=f"{test.c:,}", p=p, words=words, **names)


def facts_of(t: Translator, opened: Opened) -> list[str]:
    """That the models were trained alike, what each cost, and what one training cannot tell; none without a pair."""
    if opened.pair is None:
        return []
    first, second = opened.compared
    return [_matched(t, opened.pair), _cost(t, opened, first, second), t("viewer.overview.seed")]


def _matched(t: Translator, pair: MatchedPair) -> str:
    fields = compare_runs(pair.runs)
    equal = sum(field.equal for field in fields)
    apart = [t(f"term.matched.{field.key}") for field in fields if not field.equal]
    if apart:
        return t("viewer.overview.matched_apart", equal=equal, count=len(fields), fields=", ".join(apart))
    return t("viewer.overview.matched", equal=equal, count=len(fields))


def _cost(t: Translator, opened: Opened, first: str, second: str) -> str:
    assert opened.pair is not None
    few, many = (opened.pair.runs[model].manifest.trained_parameters for model in (first, second))
    names = {"first": literal(opened.label_of(first, t)), "second": literal(opened.label_of(second, t))}
    share = few / many if many else 0.0
    shown = percent(share) if share >= 0.001 else f"{100 * share:.2g} %"
    return t("viewer.overview.cost", few=f"{few:,}", many=f"{many:,}", share=shown, **names)


def points(share: float) -> str:
    """A difference of shares 0-1 in percentage points, with a true minus sign."""
    return f"{100 * share:.1f}".replace("-", "\u2212")
