"""The demo: the whole road on the textile images, from training to the report, small enough for two CPU cores."""

from dataclasses import dataclass
from pathlib import Path

from explain.data.base import load_data
from explain.render.overview import write_overview
from explain.report.panels import Panels, make_panels
from explain.report.write import write_report
from explain.training.images import Progress
from explain.training.machine import Machine
from explain.training.pair import MatchedPair
from explain.training.recipe import FT, LINEAR, VPT, Recipe
from explain.training.train import train_pair

DEMO_DATA = "textile"

DEMO = Recipe(
    image_size=168,
    train_per_class=36,
    val_per_class=12,
    test_per_class=60,
    epochs=7,
    search_epochs=1,
    batch_size=16,
    monitor_images=45,
    arms={
        "vpt": VPT.model_copy(update={"learning_rates": (1e-3, 5e-3)}),
        "ft": FT.model_copy(update={"learning_rates": (2e-5, 5e-5)}),
        "linear": LINEAR.model_copy(update={"learning_rates": (5e-3, 3e-2)}),
    },
)

QUICK = DEMO.model_copy(update={"image_size": 112, "train_per_class": 24, "val_per_class": 8, "test_per_class": 20,
                                "epochs": 6, "batch_size": 8})  # fmt: skip


@dataclass(frozen=True)
class DemoResult:
    """What a finished demo left: the pair, its panels, and the files made from them."""

    pair: MatchedPair
    panels: Panels
    overview: Path
    report: Path


def run_demo(
    recipe: Recipe, out: Path, *, per_rule: int, device: str | None, lang: str, progress: Progress
) -> DemoResult:
    """Train the pair, explain a rule-chosen sample of test images, draw the overview and write the report.

    Every step that is finished in `out` is kept. `per_rule` test images of each rule are explained.
    """
    data = load_data(DEMO_DATA, lambda done, total: progress("checking the images", done, total))
    pair = train_pair(data, recipe, out=out, device=device, progress=progress)
    panels = make_panels(
        pair, per_rule=per_rule, device=Machine(device=device).torch_device,
        progress=lambda done, total, what: progress("explaining chosen test images", done, total),
    )  # fmt: skip
    overview = out / "overview.png"
    write_overview(pair, panels, overview)
    return DemoResult(pair, panels, overview, write_report(pair, out=out / "report.pdf", lang=lang, panels=panels))


def free_folder(out: Path) -> Path:
    """A name beside `out` that no folder has: runs/demo -> runs/demo.1."""
    number = 1
    while (found := out.with_name(f"{out.name}.{number}")).exists():
        number += 1
    return found
