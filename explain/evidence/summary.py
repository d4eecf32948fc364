"""Summary: what a table of measurements says, with an interval on every number.

The unit is the image, then the seed: with one seed images are drawn again, with several seeds first seeds and then
images. One endpoint is declared beforehand (`PRIMARY`); every other comparison of two models has its p-value corrected
for how many there are.
"""

from pathlib import Path
from typing import Literal

from explain.errors import IntegrityError
from explain.files import read_json
from explain.record import Record

PRIMARY = ("integrated_gradients", "gain")
"""Method and metric whose difference between two models was chosen before anything was measured."""

LEAST_CEILING = 0.2
"""Agreement between two seeds of one arm under which a method is not reproducible and gets no verdict."""

RESAMPLES, LEVEL = 10_000, 0.95

FILE = "summary.json"


class Estimate(Record):
    """A mean with the ends of its interval; None where too little was measured for one.

    Args:
        images: images it rests on.
        seeds: trainings it rests on.
        missing: measurements without a number, by flag.
        flagged: measurements with a number that wants a warning, by flag; these count in the mean.
    """

    mean: float | None
    low: float | None
    high: float | None
    images: int
    seeds: int
    missing: dict[str, int] = {}
    flagged: dict[str, int] = {}


class Cell(Record):
    """One number of one model: `method` is None for what does not depend on a map."""

    model: str
    method: str | None
    metric: str
    estimate: Estimate


class Contrast(Record):
    """One arm less another on the same images.

    Args:
        p: two-sided Wilcoxon signed-rank test over the images (each the mean of its seeds); None when not possible.
        holm: the same, corrected over all contrasts but the primary one; None for the primary one.
        effect: rank-biserial correlation, -1 to 1.
        detectable: smallest difference that this many images would have found with 80 % power.
        verdict: the arm whose number is larger, "none" when the interval holds 0 or holm is above 5 %, "not measured".
    """

    first: str
    second: str
    method: str
    metric: str
    primary: bool
    difference: Estimate
    p: float | None
    holm: float | None
    effect: float | None
    detectable: float | None
    verdict: str

    @property
    def told_p(self) -> float | None:
        """The p-value that counts: as it is for the primary contrast, corrected for all others."""
        return self.p if self.primary else self.holm

    @property
    def named(self) -> bool:
        """True when the verdict names an arm."""
        return self.verdict in (self.first, self.second)


class Agreement(Record):
    """How alike two arms' maps are, beside what another seed of one arm does (ceilings) and another image (floor).

    Args:
        ratio: agreement over the geometric mean of the two ceilings; None without both.
        state: "reproducible"; "not reproducible here" when a ceiling is under `LEAST_CEILING`; "one seed" without any.
    """

    first: str
    second: str
    method: str
    metric: str
    between: Estimate
    first_ceiling: Estimate | None
    second_ceiling: Estimate | None
    floor: Estimate
    ratio: float | None
    state: Literal["reproducible", "not reproducible here", "one seed"]


class Reasons(Record):
    """Images by same or different answer of two arms and alike or unlike maps, over all chosen images and seeds.

    `alike` means a Pearson correlation of at least `threshold`, half way between floor and ceiling.
    """

    first: str
    second: str
    method: str
    threshold: float | None
    same_alike: int
    same_unlike: int
    different_alike: int
    different_unlike: int


class Block(Record):
    """One number of one block of one model (or of two models, as "vpt~ft")."""

    model: str
    metric: str
    block: int
    estimate: Estimate


class ModelFacts(Record):
    """What stands beside every attribution number: accuracy, confidence and calibration of every seed."""

    model: str
    seed: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    confidence: float
    calibration_error: float
    weights_sha256: str


class Images(Record):
    """How the images were chosen: `right` are those that every compared model answers right.

    Args:
        tested: test images in all.
        right: of these, those every model got right.
        headline: chosen from the right ones; every number but `rest` is of these.
        rest: chosen from the others.
        by_class: per class (tested, right, headline).
        with_mask: headline images with a region that decides the label.
    """

    tested: int
    right: int
    headline: int
    rest: int
    by_class: dict[str, tuple[int, int, int]]
    with_mask: int


class Summary(Record):
    """Everything that a report, a page or a viewer prints of an evaluation.

    Args:
        arms: compared arms in order, "vpt" and "ft" first.
        reference: the arm whose backbone is frozen (a linear probe): the third row; None when none was trained.
        methods: method or control -> label.
        controls: names among them that no model made.
        metrics: metric -> label, better ("higher", "lower", "neither") and chance.
        cells: headline images.
        rest: the same numbers for images that some model got wrong.
    """

    format: int = 1
    data: str
    backbone: str
    image_size: int
    grid: tuple[int, int]
    arms: tuple[str, ...]
    reference: str | None
    seeds: tuple[int, ...]
    methods: dict[str, str]
    controls: tuple[str, ...]
    metrics: dict[str, tuple[str, str, float | None]]
    images: Images
    models: tuple[ModelFacts, ...]
    primary: tuple[str, str]
    cells: tuple[Cell, ...]
    rest: tuple[Cell, ...]
    contrasts: tuple[Contrast, ...]
    agreements: tuple[Agreement, ...]
    reasons: tuple[Reasons, ...]
    blocks: tuple[Block, ...]
    resamples: int = RESAMPLES
    resample_seed: int = 0
    level: float = LEVEL
    table_sha256: str
    versions: dict[str, str]

    @classmethod
    def load(cls, folder: Path) -> "Summary":
        """Read what an evaluation wrote into its folder.

        Raises:
            IntegrityError: it is missing or of another format.
        """
        try:
            return cls.model_validate(read_json(folder / FILE))
        except ValueError as error:
            raise IntegrityError(f"{folder / FILE} is no summary of this version: {error}; evaluate again") from None

    def cell(self, model: str, method: str | None, metric: str) -> Cell | None:
        """One number, or None when it was not measured."""
        wanted = (model, method, metric)
        return next((cell for cell in self.cells if (cell.model, cell.method, cell.metric) == wanted), None)
