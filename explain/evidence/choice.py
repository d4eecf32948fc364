"""Which test images are measured: those every compared model gets right, and some of the others apart from them.

A map is compared between models only where both give the same, right answer: else a difference of maps may be one of
answers. The order is a hash of seed and id, taking the classes in turns, so a smaller choice begins a larger one.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

import numpy as np

from explain.data.base import Dataset
from explain.errors import InputError
from explain.evidence.summary import Images
from explain.training.run import Predictions


@dataclass(frozen=True)
class Choice:
    """The ids measured: `headline` all models answer right, `rest` at least one does not; `facts` how many of each."""

    headline: tuple[str, ...]
    rest: tuple[str, ...]
    facts: Images

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.headline, *self.rest)

    def first(self, count: int | None) -> "Choice":
        """Only the first `count` headline images, and as large a share of the rest."""
        if count is None or count >= len(self.headline):
            return self
        share = len(self.rest) * count // len(self.headline)
        return replace(self, headline=self.headline[:count], rest=self.rest[:share])


def choose_images(
    data: Dataset, answers: Sequence[Predictions], *, count: int | None, rest: int, seed: int
) -> Choice:
    """Choose by what the models answered.

    Args:
        data: the test images.
        answers: of every compared model, on exactly these images.
        count: headline images at most; None for all.
        rest: images at most that some model got wrong.
        seed: of the order.

    Raises:
        InputError: there is no image that all models answer right.
    """
    ids = [sample.id for sample in data.samples]
    right = np.all([_correct(one, ids) for one in answers], axis=0)
    good = _in_turns(data, [name for name, ok in zip(ids, right, strict=True) if ok], seed)
    bad = _in_turns(data, [name for name, ok in zip(ids, right, strict=True) if not ok], seed)
    if not good:
        raise InputError(f"none of the {len(ids)} test images is answered right by all {len(answers)} models; "
                         "there is nothing to compare maps on")  # fmt: skip
    headline, others = good[:count], bad[:rest]
    parts = [data.select(part).counts() for part in (ids, good, headline)]
    facts = Images(
        tested=len(ids), right=len(good), headline=len(headline), rest=len(others),
        by_class={name: (parts[0][name], parts[1][name], parts[2][name]) for name in data.class_names},
        with_mask=sum(data.by_id[name].mask is not None for name in headline),
    )  # fmt: skip
    return Choice(tuple(headline), tuple(others), facts)


def _correct(answers: Predictions, ids: Sequence[str]) -> list[bool]:
    by_id: Mapping[str, bool] = dict(zip(answers.ids, answers.correct.tolist(), strict=True))
    missing = [name for name in ids if name not in by_id]
    if missing:
        raise InputError(f"{len(missing)} images were not answered by a model, first {missing[0]!r}")
    return [by_id[name] for name in ids]


def _in_turns(data: Dataset, ids: Sequence[str], seed: int) -> list[str]:
    """Ids in a random order that takes one of each class in turn."""
    queues: list[list[str]] = [[] for _ in data.class_names]
    for name in sorted(ids, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest()):
        queues[data.by_id[name].label].append(name)
    return [name for name in chain.from_iterable(zip_longest(*queues)) if name is not None]
