"""Explainability for vision transformers: matched VPT and full fine-tuning, and one engine to see what each looks at.

    model = explain.wrap(timm_vit)                     any timm VisionTransformer as it stands
    pair = explain.train_pair("textile")               a matched pair, trained
    maps = explain.attribute(model, images)            method name -> Attribution
    explain.attribute_dataset(pair, data, out="maps")  the maps of a whole data set -> MapArchive
    explain.evaluate(pair)                             how right the maps are, and how VPT and FT differ
    explain.write_report(pair, out="report.pdf")       what leaves the building
    explain.verify_report("report.pdf")                whether it is what it says

Names are imported on first use, so `import explain` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explain.archive.archive import MapArchive as MapArchive
    from explain.attribution import Attribution as Attribution
    from explain.batch.dataset import attribute_dataset as attribute_dataset
    from explain.data.base import load_data as load_data
    from explain.engine import attribute as attribute
    from explain.engine import attribute_targets as attribute_targets
    from explain.errors import ExplainError as ExplainError
    from explain.evidence.evaluate import Evaluation as Evaluation
    from explain.evidence.evaluate import evaluate as evaluate
    from explain.evidence.planted import planted_cues as planted_cues
    from explain.model import TunedModel as TunedModel
    from explain.prompts.bank import PromptBank as PromptBank
    from explain.prompts.store import PromptStore as PromptStore
    from explain.report.verify import verify_report as verify_report
    from explain.report.write import write_report as write_report
    from explain.training.pair import MatchedPair as MatchedPair
    from explain.training.pair import load_pair as load_pair
    from explain.training.recipe import Recipe as Recipe
    from explain.training.run import Run as Run
    from explain.training.run import load_model as load_model
    from explain.training.study import Study as Study
    from explain.training.study import train_study as train_study
    from explain.training.train import train_pair as train_pair
    from explain.tuning.base import tune as tune
    from explain.wrapping import wrap as wrap

_HOMES = {
    "Attribution": "explain.attribution",
    "Evaluation": "explain.evidence.evaluate",
    "ExplainError": "explain.errors",
    "MapArchive": "explain.archive.archive",
    "MatchedPair": "explain.training.pair",
    "PromptBank": "explain.prompts.bank",
    "PromptStore": "explain.prompts.store",
    "Recipe": "explain.training.recipe",
    "Run": "explain.training.run",
    "Study": "explain.training.study",
    "TunedModel": "explain.model",
    "attribute": "explain.engine",
    "attribute_dataset": "explain.batch.dataset",
    "attribute_targets": "explain.engine",
    "evaluate": "explain.evidence.evaluate",
    "load_data": "explain.data.base",
    "load_model": "explain.training.run",
    "load_pair": "explain.training.pair",
    "planted_cues": "explain.evidence.planted",
    "train_pair": "explain.training.train",
    "train_study": "explain.training.study",
    "tune": "explain.tuning.base",
    "wrap": "explain.wrapping",
    "verify_report": "explain.report.verify",
    "write_report": "explain.report.write",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'explain' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
