"""evaluate: maps of every model of a pair or study, every measure of them, one table and its summary.

    evidence/evidence.parquet    image, model, seed, method, metric, value, flag
    evidence/images.json         which images, and how they were chosen
    evidence/summary.json        means, intervals, comparisons; written last
    evidence/summary.md          the same as a page of tables
    evidence/disturbed.json      right answers on changed test images, of the first seed
    evidence/parts/              finished pieces, so that an interrupted evaluation goes on where it stopped
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from explain.data.base import Dataset, load_data
from explain.engine import DEFAULT_METHODS, load_images
from explain.errors import InputError
from explain.evidence.across import COMPARISONS, Seen, compare, compare_labels, pairings
from explain.evidence.base import MEASURES, Measure, Row
from explain.evidence.bench import Bench, Setting, build
from explain.evidence.choice import Choice, choose_images
from explain.evidence.disturbed import measure_disturbed
from explain.evidence.found import EVIDENCE
from explain.evidence.page import FILE as PAGE
from explain.evidence.page import summary_page
from explain.evidence.scorer import run_forwards
from explain.evidence.summarise import summarise
from explain.evidence.summary import FILE, Summary
from explain.files import read_table, sha256_file, write_atomically, write_json, write_table
from explain.passes import Passes
from explain.training.images import Progress, quiet
from explain.training.machine import Machine
from explain.training.pair import MatchedPair, load_pair
from explain.training.run import Predictions, Run
from explain.training.study import Study

TABLE = "evidence.parquet"


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Args:
        path: its folder.
        summary: means, intervals and comparisons.
    """

    path: Path
    summary: Summary

    @classmethod
    def load(cls, path: str | Path) -> "Evaluation":
        """Open the folder of an evaluation, or of the pair or study it belongs to.

        Raises:
            IntegrityError: there is none, or it is not finished.
        """
        folder = Path(path)
        inner = folder / EVIDENCE
        chosen = inner if (inner / FILE).is_file() else folder
        return cls(chosen, Summary.load(chosen))

    @cached_property
    def table(self) -> pa.Table:
        """One row per number: image, model, seed, method, metric, value, flag."""
        return read_table(self.path / TABLE)


def evaluate(
    pair: MatchedPair | Study | str | Path,
    data: Dataset | str | Path | None = None,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    measures: Sequence[str] | None = None,
    arms: Sequence[str] = ("vpt", "ft"),
    images: int | None = 100,
    rest: int = 20,
    seeds: Sequence[int] | None = None,
    later_images: int | None = None,
    random_labels: MatchedPair | str | Path | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    device: str | None = None,
    memory_budget: int | str = "auto",
    progress: Progress = quiet,
) -> Evaluation:
    """Measure the maps of matched models; call it again to continue an interrupted evaluation.

    Args:
        pair: a matched pair, a study of several seeds, or the folder of either. Several seeds give ceilings.
        data: labelled images with the models' classes; None for the test images of the pair. Of a data set that holds
            those test images, exactly they are taken, so one that came to have masks can be given again.
        methods: registered methods.
        options: per method its options.
        measures: names of measures; None for all.
        arms: arms that are compared, the first two above all.
        images: images at most that every model answers right; None for all of them.
        rest: further images at most that some model gets wrong, reported apart.
        seeds: of a study, the seeds measured; None for all.
        later_images: of the images, how many the models of every seed but the first are shown, and the arm with the
            frozen backbone; None for all. A ceiling needs fewer images than a comparison of two models does.
        random_labels: a pair trained alike but on random labels (recipe field label_noise of (K - 1) / K for K
            classes), whose maps should be unlike those of the first seed.
        seed: of the choice of images and of everything random in a measure.
        out: folder of the result; None is "evidence" in the folder of the pair or study.
        device: "cpu", "cuda", or None for a GPU when there is one.
        memory_budget: bytes that a pass may take, or "auto".
        progress: called with (what is running, steps done, steps in all).

    Raises:
        InputError: an arm that was not trained, images without the models' classes, or none that all models get right.
        UnknownNameError: no such method or measure.
        IntegrityError: runs or pieces that changed since they were written.
    """
    folder, pairs = _open(pair, seeds)
    asked = [MEASURES.create(name) for name in (MEASURES if measures is None else measures)]
    target = Path(out) if out is not None else folder / EVIDENCE
    setting = Setting(
        _dataset(pairs, data), tuple(methods), options or {}, seed, target,
        Machine(device=device).torch_device, memory_budget, progress,
    )  # fmt: skip
    found = _Job(setting, pairs, tuple(arms)).run(asked, images, rest, later_images, random_labels)
    if data is None:
        measure_disturbed(pairs[0], target, seed=seed, device=setting.device, progress=progress)
    return found


def _open(
    pair: MatchedPair | Study | str | Path, seeds: Sequence[int] | None
) -> tuple[Path, list[MatchedPair]]:
    """The folder and one pair per seed."""
    if isinstance(pair, MatchedPair):
        folder, pairs = pair.path, [pair]
    elif isinstance(pair, Study) or (Path(pair) / "study.json").is_file():
        study = pair if isinstance(pair, Study) else Study.load(pair)
        folder, pairs = study.path, study.pairs
    else:
        folder, pairs = Path(pair), [load_pair(pair)]
    by_seed = {one.vpt.manifest.seed: one for one in pairs}
    wrong = [seed for seed in seeds or () if seed not in by_seed]
    if wrong or (seeds is not None and not seeds):
        raise InputError(f"{folder} has the seeds {', '.join(map(str, by_seed))}, got {seeds}")
    return folder, [by_seed[seed] for seed in seeds or by_seed]


def _dataset(pairs: Sequence[MatchedPair], data: Dataset | str | Path | None) -> Dataset:
    """The images to choose from."""
    test, classes = pairs[0].test, pairs[0].vpt.manifest.class_names
    if data is None:
        return test
    given = data if isinstance(data, Dataset) else load_data(data)
    if tuple(given.class_names) != tuple(classes):
        raise InputError(f"expected images of the classes {', '.join(classes)}, in this order; data set "
                         f"{given.name!r} has {', '.join(given.class_names)}")  # fmt: skip
    own = {sample.id: sample.sha256 for sample in test.samples}
    same = [name for name, digest in own.items() if name in given.by_id and given.by_id[name].sha256 == digest]
    return given.select(own) if len(same) == len(own) else given


@dataclass(frozen=True)
class _Job:
    """One evaluation on its way: the setting, one pair per seed, and the arms compared."""

    setting: Setting
    pairs: Sequence[MatchedPair]
    arms: tuple[str, ...]

    def run(
        self, measures: Sequence[Measure], count: int | None, rest: int, later: int | None,
        random_labels: MatchedPair | str | Path | None,
    ) -> Evaluation:  # fmt: skip
        """Everything, from the choice of images to the summary."""
        self._check()
        noisy = {} if random_labels is None else self._noisy(random_labels)
        setting, order = self.setting, (*self.arms, *self._reference())
        answers = {key: self._answers(run) for key, run in self._runs(order).items()}
        compared = [one for (_, arm), one in answers.items() if arm in self.arms]
        choice = choose_images(setting.data, compared, count=count, rest=rest, seed=setting.seed)
        first = self.pairs[0].vpt.manifest.seed
        tables: list[pa.Table] = []
        seen: list[Seen] = []
        for (seed, arm), run in self._runs(order).items():
            whole = seed == first and arm in self.arms
            bench = Bench(setting, choice if whole else choice.first(later), run, seed, arm)
            seen.append(bench.seen())
            if arm in self.arms:
                tables += bench.measured([one for one in measures if one.every_seed or seed == first])
        for arm, run in noisy.items():
            own = next(one for one in seen if (one.arm, one.seed) == (arm, first))
            other = Bench(setting, choice, run, first, f"{arm}.random_labels").seen()
            tables.append(self._compared("labels", arm, str(first), (own, other), partial(compare_labels, own, other)))
        both = pairings(seen, order)
        for done, pair in enumerate(both):
            setting.progress("agreement between models", done, len(both))
            tables.append(self._compared("agreement", pair.model, pair.seed, pair, partial(compare, pair)))
        setting.progress("agreement between models", len(both), len(both))
        grid = next(iter(seen[0].maps.values())).shape[1:]
        return self._write(pa.concat_tables(tables), choice, measures, answers, grid)

    def _check(self) -> None:
        self.setting.methods_key()  # an unknown method or option is an error before anything is computed
        for pair in self.pairs:
            missing = [arm for arm in self.arms if arm not in pair.runs]
            if missing or len(set(self.arms)) < max(2, len(self.arms)):
                raise InputError(f"expected two or more different arms of {', '.join(pair.runs)} in {pair.path}, got "
                                 f"{', '.join(self.arms) or 'none'}")  # fmt: skip

    def _noisy(self, random_labels: MatchedPair | str | Path) -> dict[str, Run]:
        """By arm, the runs that were trained on random labels."""
        pair = random_labels if isinstance(random_labels, MatchedPair) else load_pair(random_labels)
        for arm in self.arms:
            own, other = self.pairs[0].runs[arm], pair.runs.get(arm)
            if other is None or not other.recipe.label_noise:
                raise InputError(f"expected a pair trained with label_noise and the arm {arm!r} in {pair.path}")
            fields = [(run.manifest.class_names, run.manifest.image_size, run.manifest.tuning_options)
                      for run in (own, other)]  # fmt: skip
            if fields[0] != fields[1]:
                raise InputError(f"{other.path} was not trained like {own.path}: classes, input size or tuning differ")
        return {arm: pair.runs[arm] for arm in self.arms}

    def _runs(self, arms: Iterable[str]) -> dict[tuple[int, str], Run]:
        return {(pair.vpt.manifest.seed, arm): pair.runs[arm] for pair in self.pairs for arm in arms}

    def _reference(self) -> tuple[str, ...]:
        """The arm with a frozen backbone, where there is one that is not compared itself."""
        linear = [arm for arm, run in self.pairs[0].runs.items() if run.manifest.tuning == "linear"]
        return tuple(arm for arm in linear[:1] if arm not in self.arms and all(arm in pair.runs for pair in self.pairs))

    def _answers(self, run: Run) -> Predictions:
        """A run's answers on the images; computed where they are not the test images it was tested on."""
        samples = self.setting.data.samples
        ids = [sample.id for sample in samples]
        if set(ids) <= set(run.predictions.ids):
            return run.predictions
        stored = self.setting.piece("answers", [run.manifest.weights_sha256, self.setting.images_key(ids)], "parquet")
        if not stored.is_file():
            model = build(run, self.setting.device)
            logits = torch.from_numpy(run_forwards(
                model.replica(), len(ids), lambda rows: load_images(samples[rows], model.transform),
                Passes(self.setting.memory_budget),
            ))  # fmt: skip
            labels = np.array([sample.label for sample in samples])
            found = Predictions(ids, labels, logits.argmax(1).numpy(), logits.softmax(1).numpy())
            found.save(stored)
        return Predictions.load(stored)

    def _compared(
        self, what: str, model: str, seed: str, both: tuple[Seen, Seen], make: Callable[[], Iterable[Row]]
    ) -> pa.Table:
        """The rows that compare two models, kept as one piece."""
        key = [[[one.weights_sha256, self.setting.images_key(one.ids)] for one in both], self.setting.methods_key(),
               sorted(COMPARISONS)]  # fmt: skip
        return self.setting.rows(f"{model}.{seed}.{what}", key, model, seed, make)

    def _write(
        self, table: pa.Table, choice: Choice, measures: Sequence[Measure],
        answers: Mapping[tuple[int, str], Predictions], grid: tuple[int, int],
    ) -> Evaluation:  # fmt: skip
        folder = self.setting.folder
        facts = choice.facts.model_dump(mode="json")
        write_json(folder / "images.json", {"headline": choice.headline, "rest": choice.rest, "facts": facts})
        write_table(table, folder / TABLE)
        summary = summarise(
            table, choice, self.pairs, self.arms, self._reference(), measures=measures, methods=self.setting.methods,
            answers=answers, data=self.setting.data, grid=grid, table_sha256=sha256_file(folder / TABLE),
            seed=self.setting.seed,
        )  # fmt: skip
        text = summary_page(summary)
        write_atomically(folder / PAGE, lambda to: to.write_text(text, encoding="utf-8"))
        write_json(folder / FILE, summary.model_dump(mode="json"))
        return Evaluation(folder, summary)
