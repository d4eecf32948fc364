"""Claim: which images, models and options an archive is about; written down when it is begun, the same ever after."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explain.archive.archive import MapArchive
from explain.archive.commit import now
from explain.archive.job import KEY, Job, MapFacts
from explain.archive.manifest import Manifest, ManifestFacts, same_images
from explain.archive.store import Store
from explain.attribution import Attribution
from explain.batch.estimate import map_facts, noise, trial_images
from explain.batch.images import Images, find_batch
from explain.batch.models import Source, model_facts
from explain.batch.numbers import same_classes
from explain.batch.settings import Settings
from explain.batch.shard import IMAGE_ERRORS, status_of
from explain.engine import attribute, load_images
from explain.errors import InputError
from explain.model import TunedModel
from explain.provenance import library_versions
from explain.record import differences
from explain.training.images import Progress


@dataclass(frozen=True)
class Claim:
    """What one call asks for.

    Args:
        sources: where each model comes from.
        models: the models themselves, on their device.
        methods: method -> every option.
        targets: as in `attribute_dataset`.
        store_maps: as in `attribute_dataset`.
        precision: as in `attribute_dataset`.
        shard_size: images per shard.
        settings: how shards are computed.
        progress: told as images are listed.
    """

    sources: Mapping[str, Source]
    models: Mapping[str, TunedModel]
    methods: Mapping[str, dict[str, Any]]
    targets: int | str | None
    store_maps: str
    precision: str
    shard_size: int
    settings: Settings
    progress: Progress

    def begin(self, store: Store, data: Any) -> tuple[MapArchive, float]:
        """Write down which images and what is computed.

        Returns:
            The archive, still empty, and how many seconds an image takes.

        Raises:
            InputError: no images, one of them twice, or targets that do not fit images and models.
        """
        if data is None:
            raise InputError(f"{store.url} holds no archive to go on with; give the images")
        images = find_batch(data, self._class_names, self.progress)
        targets = self._targets(images)
        manifest = Manifest.write(store, images.entries(), self.shard_size)
        repeated = manifest.repeated_id()
        if repeated is not None:
            raise InputError(f"image {repeated!r} is given twice; give every image once")
        maps, seconds = self._trial(manifest, images.facts.folder)
        store.put(KEY, self._job(images, manifest.facts, targets, maps).to_bytes())
        return MapArchive(store), seconds

    def check(self, archive: MapArchive, data: Any) -> None:
        """Whether an archive that was begun is about the same.

        The content of the images is checked when they are read.

        Raises:
            InputError: it is not; each difference is named.
        """
        there = archive.job
        images = Images(there.data, lambda: (), bool(there.data.class_names))
        if data is not None and str(data) != there.data.location:
            images = find_batch(data, self._class_names, self.progress)
            if not same_images(images.entries(), there.manifest) or images.facts.root != there.data.root:
                of_what = there.data.name + (f" in {there.data.root}" if there.data.root else "")
                raise InputError(
                    f"{archive.store.url} is an archive of other images ({len(archive):,} of {of_what}); choose "
                    "another folder, or give no data to go on with those images"
                )
        asked = self._job(images, there.manifest, self._targets(images), there.maps)
        differing = list(differences(there.config, asked.config))
        if self.shard_size != there.manifest.shard_size and data is not None:
            differing.append(f"shard_size is {there.manifest.shard_size} there and {self.shard_size} now")
        if differing:
            raise InputError(f"{archive.store.url} was begun with something else: {'; '.join(differing)}. Choose "
                             "another folder, or ask for the same")  # fmt: skip

    def _job(
        self, images: Images, manifest: ManifestFacts, targets: str | int, maps: Sequence[MapFacts]
    ) -> Job:
        return Job(
            data=images.facts, manifest=manifest, targets=targets, store_maps=self.store_maps,  # type: ignore[arg-type]
            models=tuple(model_facts(name, self.sources[name], model) for name, model in self.models.items()),
            methods=dict(self.methods), precision=self.precision, maps=tuple(maps),  # type: ignore[arg-type]
            batch_size=self.settings.batch_size, created=now(), versions=library_versions(),
        )  # fmt: skip

    @property
    def _class_names(self) -> tuple[str, ...]:
        return next(iter(self.models.values())).class_names

    def _targets(self, images: Images) -> str | int:
        """What the maps explain, checked against what models and images know before anything is computed."""
        wanted: str | int
        if self.targets is None:
            wanted = "label" if len(self.models) > 1 and images.labelled else "predicted"
        elif self.targets in ("predicted", "label"):
            wanted = self.targets
        else:
            wanted = _class_index(self.targets, self._class_names)
        if wanted == "label" and not images.labelled:
            raise InputError("targets 'label' needs labelled images, and these have no labels; use 'predicted' or a "
                             "class name")  # fmt: skip
        classes = {name: model.class_names for name, model in self.models.items()}
        if wanted != "predicted" and len(set(classes.values())) > 1:
            each = "; ".join(f"{name} counts {_list(own)}" for name, own in classes.items())
            raise InputError(f"one target would mean different classes to the models: {each}. Explain each in an "
                             "archive of its own, or use targets='predicted'")  # fmt: skip
        if wanted == "label":
            _check_labels(images.facts.class_names, self._class_names)
        return wanted

    def _trial(self, manifest: Manifest, root: Path | None) -> tuple[list[MapFacts], float]:
        """What each method gives, seen on a few images, and seconds per image."""
        pictures, facts, seconds = trial_images(manifest.shard(0), root), [], 0.0
        for name, model in self.models.items():
            try:
                own, spent = self._try(name, model, pictures)
            except IMAGE_ERRORS as error:  # because of one of these images, or always?
                status_of(error)
                own, spent = self._try_noise(name, model)
            facts += own
            seconds += spent
        return facts, seconds

    def _try_noise(self, name: str, model: TunedModel) -> tuple[list[MapFacts], float]:
        try:
            return self._try(name, model, [noise()])
        except IMAGE_ERRORS as error:
            status_of(error)
            raise InputError(f"model {name!r} cannot explain any image: {error}") from None

    def _try(self, name: str, model: TunedModel, pictures: Sequence[Any]) -> tuple[list[MapFacts], float]:
        facts = map_facts(name, self._explain(model, pictures[:1]))
        began = time.perf_counter()  # the first call also paid for what is made once
        self._explain(model, pictures)
        return facts, (time.perf_counter() - began) / len(pictures)

    def _explain(self, model: TunedModel, pictures: Sequence[Any]) -> dict[str, Attribution]:
        return attribute(model, load_images(pictures, model.transform), methods=tuple(self.methods),
                         options=self.methods, batch_size=self.settings.batch_size,
                         memory_budget=self.settings.memory_budget, precision=self.precision)  # fmt: skip


def _class_index(target: int | str, class_names: Sequence[str]) -> int:
    if isinstance(target, str):
        if target not in class_names:
            raise InputError(f"expected targets 'label', 'predicted', a class index or one of {_list(class_names)}; "
                             f"got {target!r}")  # fmt: skip
        return list(class_names).index(target)
    if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < len(class_names):
        raise InputError(f"target {target!r} out of range; the models have {len(class_names)} classes, 0 to "
                         f"{len(class_names) - 1}")  # fmt: skip
    return target


def _check_labels(of_data: Sequence[str], of_model: Sequence[str]) -> None:
    """A label must mean the same class to images and model."""
    if not same_classes(of_data, of_model):
        raise InputError(f"expected images of the classes {_list(of_model)}, in this order; these have "
                         f"{_list(of_data)}. A label would mean another class to the model")  # fmt: skip


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f", … ({len(names)} in all)" if len(names) > 10 else "")
