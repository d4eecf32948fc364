"""Several seeds of one comparison, for the evidence: what another training would have changed."""

import numpy as np

from explain.i18n import Translator
from explain.metrics.statistics import paired_seeds, seed_interval, two_way_bootstrap
from explain.report.parts.answers import RESAMPLES, SEED, percent
from explain.report.schema.seeds import SeedArm, Seeds
from explain.training.pair import MatchedPair


def sibling_pairs(pair: MatchedPair) -> list[MatchedPair]:
    """The finished pairs of the study that a pair's folder `seed…` lies in, itself among them, in order of seed.

    Sibling folders that trained by another recipe or on other images are no seeds of this one.
    """
    here = pair.path.resolve()
    if not here.name.startswith("seed"):
        return [pair]
    pairs = []
    for folder in sorted(here.parent.glob("seed*")):
        if folder == here:
            pairs.append(pair)
        elif all((folder / arm / "manifest.json").is_file() for arm in pair.runs):
            other = MatchedPair.load(folder)
            if _same_but_seed(pair, other):
                pairs.append(other)
    return sorted(pairs, key=lambda one: one.vpt.manifest.seed)


def seeds_of(pairs: list[MatchedPair], label: dict[str, str], t: Translator) -> Seeds | None:
    """What several seeds say together; None for fewer than two.

    Args:
        pairs: one per seed.
        label: name of every arm for readers.
        t: words.
    """
    if len(pairs) < 2:
        return None
    arms = tuple(_arm(arm, label[arm], pairs) for arm in pairs[0].runs if all(arm in pair.runs for pair in pairs))
    vpt, ft = ([pair.runs[arm].manifest.test.accuracy for pair in pairs] for arm in ("vpt", "ft"))
    difference = paired_seeds(vpt, ft)
    both = None
    if len({tuple(run.predictions.ids) for pair in pairs for run in (pair.vpt, pair.ft)}) == 1:
        correct = [np.stack([pair.runs[arm].predictions.correct for pair in pairs]) for arm in ("vpt", "ft")]
        both = two_way_bootstrap(*correct, resamples=RESAMPLES, seed=SEED)
    tie = difference.tie or (both is not None and both.tie)
    key = "tie" if difference.tie else "tie_images" if tie else "clear"
    words = {name: percent(getattr(difference, name)) for name in ("mean", "low", "high")}
    return Seeds(
        seeds=tuple(pair.vpt.manifest.seed for pair in pairs), arms=arms, mean=difference.mean, low=difference.low,
        high=difference.high, per_seed=difference.per_seed, both_low=both and both.low, both_high=both and both.high,
        tie=tie, statement=t(f"report.seeds.{key}", count=len(pairs), **words),
    )  # fmt: skip


def _arm(name: str, label: str, pairs: list[MatchedPair]) -> SeedArm:
    accuracies = tuple(pair.runs[name].manifest.test.accuracy for pair in pairs)
    low, high = seed_interval(accuracies)
    mean = sum(accuracies) / len(accuracies)
    return SeedArm(name=name, label=label, accuracies=accuracies, mean=mean, low=low, high=high)


def _same_but_seed(pair: MatchedPair, other: MatchedPair) -> bool:
    recipes = [one.vpt.recipe.model_dump(mode="json", exclude={"seed"}) for one in (pair, other)]
    return recipes[0] == recipes[1] and pair.vpt.manifest.data_fingerprint == other.vpt.manifest.data_fingerprint
