"""The models of a batch: named, hashed, and built again where they are needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from explain.archive.job import MODEL_NAME, ModelFacts
from explain.errors import InputError, IntegrityError
from explain.files import sha256_json
from explain.model import TunedModel
from explain.tensor_files import sha256_tensors
from explain.training.pair import MatchedPair
from explain.training.run import Run

EXPECTED = "a TunedModel, a run, a matched pair, the folder of either, or a dictionary of name -> model"


@dataclass(frozen=True)
class Source:
    """Where a model comes from: the folder of a trained run, or memory."""

    run: Path | None = None
    given: TunedModel | None = None

    def load(self) -> TunedModel:
        """The model, on the CPU where it is built here."""
        if self.given is not None:
            return self.given
        if self.run is None:
            raise InputError("a model that was given from Python is not here; run it where it was given")
        return Run.load(self.run).model


def named_models(models: Any) -> dict[str, Source]:
    """Name -> source of what a caller may give as models.

    A run is called like its arm; both models of a pair are "vpt" and "ft"; a model from memory alone is "model".

    Raises:
        InputError: something else, or a name that cannot name a column.
        IntegrityError: a folder without a finished run.
    """
    found = _named(models)
    if not found:
        raise InputError(f"expected at least one model: {EXPECTED}")
    wrong = [name for name in found if not isinstance(name, str) or not MODEL_NAME.fullmatch(name)]
    if wrong:
        raise InputError(f"expected names of a letter, then letters, digits and _, for models; got {wrong[0]!r}")
    return found


def _named(models: Any) -> dict[str, Source]:
    if isinstance(models, TunedModel):
        return {"model": Source(given=models)}
    if isinstance(models, Run):
        return {models.manifest.arm: Source(run=models.path)}
    if isinstance(models, MatchedPair):
        return {arm: Source(run=models.runs[arm].path) for arm in ("vpt", "ft")}
    if isinstance(models, str | Path):
        folder = Path(models)
        return _named(Run.load(folder) if (folder / "manifest.json").is_file() else _pair(folder))
    if isinstance(models, Mapping):
        return {name: _single(name, value) for name, value in models.items()}
    raise InputError(f"expected {EXPECTED}; got {type(models).__name__}")


def _pair(folder: Path) -> MatchedPair:
    if not any(folder.glob("*/manifest.json")):
        raise IntegrityError(f"{folder} holds no finished run and no pair; train one, or check the path")
    return MatchedPair.load(folder)


def _single(name: str, value: Any) -> Source:
    found = list(_named(value).values()) if not isinstance(value, Mapping) else []
    if len(found) != 1:
        raise InputError(f"expected one model under the name {name!r}: a TunedModel, a run or its folder")
    return found[0]


def model_facts(name: str, source: Source, model: TunedModel) -> ModelFacts:
    """What an archive records of a model."""
    run = None if source.run is None else Run.load(source.run)
    plain = {key: value if isinstance(value, str | int | float | bool | None) else str(value)
             for key, value in model.tuning_options.items()}  # fmt: skip
    grid = model.grid_for(torch.zeros(1, 3, *model.transform.size))
    return ModelFacts(
        name=name, sha256=model_sha256(model), tuning=model.tuning, tuning_options=plain, class_names=model.class_names,
        image_size=model.transform.size, grid=grid,
        backbone=None if model.card is None else model.card.spec,
        run=None if run is None else str(run.path.resolve()),
        run_identity=None if run is None else run.manifest.identity,
    )  # fmt: skip


def model_sha256(model: TunedModel) -> str:
    """SHA-256 over all that a model answers by: weights, input transform, tuning and class names."""
    transform = model.transform
    return sha256_json({
        "weights": sha256_tensors(model.state_dict()),
        "transform": [list(transform.size), list(transform.mean), list(transform.std), transform.interpolation],
        "tuning": [model.tuning, {key: str(value) for key, value in sorted(model.tuning_options.items())}],
        "classes": list(model.class_names),
    })  # fmt: skip


def load_models(sources: Mapping[str, Source], device: torch.device) -> dict[str, TunedModel]:
    """Trained runs on a device; a model from memory stays where its owner put it."""
    models = {name: source.load() for name, source in sources.items()}
    return {name: model if sources[name].run is None else model.to(device) for name, model in models.items()}


def check_models(models: Mapping[str, TunedModel], facts: Mapping[str, ModelFacts]) -> None:
    """Prove that models are those a job was begun with.

    Raises:
        IntegrityError: a model is another one now.
    """
    for name, model in models.items():
        if model_sha256(model) != facts[name].sha256:
            raise IntegrityError(f"model {name!r} ({facts[name].run or 'given from Python'}) is not the one this "
                                 "archive was begun with; restore it, or write a new archive")  # fmt: skip
