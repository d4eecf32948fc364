"""Curves: deletion and insertion of one image, in the order of a map and in random orders.

They are made as the measure "removal" makes those of many images: patches vanish into black, or appear out of a blur,
in as many steps. A test holds the two together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app import maps, worker
from app.maps import Wanted
from app.opening import Opened
from app.worker import Ticket, Work
from explain.archive.manifest import Entry
from explain.attribution import Array, Attribution
from explain.baselines import baseline_images
from explain.engine import load_images
from explain.errors import ExplainError
from explain.evidence.scorer import on_pixels, probabilities, run_forwards
from explain.evidence.subject import on_grid
from explain.metrics.faithfulness import curve_area, patch_order, removal_counts
from explain.model import TunedModel
from explain.passes import Passes

STEPS = 8
"""Parts into which the patches are divided."""

RANDOM_SEEDS = tuple(range(10))
"""Of the random orders, which are the same for every model, method and target."""


@dataclass(frozen=True)
class Curves:
    """Probability of the target, by order and by how many patches are gone or back, the ends included.

    Args:
        shares: (points,) of the patches that are gone (deletion) or back (insertion), 0-1.
        deletion, insertion: (orders, points), 0-1.
    """

    shares: Array
    deletion: Array
    insertion: Array

    @property
    def deletion_areas(self) -> Array:
        """(orders,), 0-1; small where the order is right."""
        return curve_area(self.deletion)

    @property
    def insertion_areas(self) -> Array:
        """(orders,), 0-1; large where the order is right."""
        return curve_area(self.insertion)


def ready(opened: Opened, image: Entry, wanted: Wanted, *, random: bool = False) -> Curves | ExplainError | None:
    """The curves of a map, or of the random orders on its model; None when they are not there yet."""
    found: Curves | ExplainError | None = worker.the_worker().result(_key(opened, image, wanted, random=random))
    return found


def works_of(opened: Opened, image: Entry, wanted: Sequence[Wanted], names: Mapping[Wanted, str]) -> list[Work]:
    """What the worker has to do for what is missing, maps and curves.

    Args:
        opened: what the viewer was started on; every model wanted has a run.
        image: whose curves.
        wanted: the maps whose orders are followed.
        names: each of them in words, for the line that says what is running.
    """
    works = [maps.work_of(opened, image, one, names[one]) for one in wanted if maps.ready(opened, image, one) is None]
    works += [
        Work(_key(opened, image, one, random=random), names[one], _computing(opened, image, one, random=random))
        for one in wanted for random in (False, True) if ready(opened, image, one, random=random) is None
    ]  # fmt: skip
    return works


def _key(opened: Opened, image: Entry, wanted: Wanted, *, random: bool) -> tuple[Any, ...]:
    """What curves are known by; random orders do not depend on the method."""
    if not random:
        return ("curves", maps.key_of(opened, image, wanted), wanted.target)
    run = opened.run(wanted.model)
    return ("random curves", run.manifest.identity if run else "", image.sha256 or str(image.path), wanted.target)


def _computing(opened: Opened, image: Entry, wanted: Wanted, *, random: bool) -> Callable[[Ticket], Curves]:
    run = opened.run(wanted.model)

    def compute(ticket: Ticket) -> Curves:
        assert run is not None  # only then is it asked for
        model = maps.load_model(run)
        pixels = load_images([image], model.transform)
        grid = model.grid_for(pixels)
        if random:
            patches = int(np.prod(grid))
            orders = np.stack([np.random.default_rng(seed).permutation(patches) for seed in RANDOM_SEEDS])
        else:
            orders = patch_order(on_grid(_map_of(opened, image, wanted, ticket), grid), np.random.default_rng(0))
        return removal_curves(model, pixels, orders, wanted.target, ticket)

    return compute


def _map_of(opened: Opened, image: Entry, wanted: Wanted, ticket: Ticket) -> Attribution:
    """The map, which the worker has made before its curves unless it was dropped since."""
    found = maps.ready(opened, image, wanted)
    if isinstance(found, ExplainError):
        raise found
    made: Attribution = found or maps.work_of(opened, image, wanted, "").run(ticket)
    return made


def removal_curves(model: TunedModel, image: Tensor, orders: Array, target: int, ticket: Ticket) -> Curves:
    """Deletion and insertion of one image.

    Args:
        model: left as found.
        image: (1, 3, H, W) in model space.
        orders: (orders, patches) indices of patches, the first to go, or to come back, first.
        target: class index whose probability is followed.
        ticket: says whether to go on, and how far it is.

    Raises:
        Cancelled: nobody wants the curves any more.
    """
    patches = orders.shape[-1]
    counts = removal_counts(patches, min(STEPS, patches))
    ranks = np.argsort(orders, axis=-1)[:, None]
    kept = np.stack([ranks >= counts[:, None], ranks < counts[:, None]], axis=1)  # (orders, 2, points, patches)
    blurred = np.broadcast_to(np.array([False, True])[:, None, None], (*kept.shape[:-1], 1))
    jobs = np.concatenate([blurred, kept], axis=-1).reshape(-1, patches + 1)
    different, place = np.unique(jobs, axis=0, return_inverse=True)  # the ends are the same for every order
    make = _composer(model, image, different[:, 1:].reshape(-1, *model.grid_for(image)), different[:, 0])

    def made(rows: slice) -> Tensor:
        ticket.say(rows.start, len(different))
        return make(rows)

    logits = run_forwards(model.replica(), len(different), made, Passes(cancelled=ticket.cancelled))
    scores = probabilities(logits, np.full(len(different), target))[place.reshape(-1)].reshape(kept.shape[:-1])
    return Curves(counts / patches, scores[:, 0], scores[:, 1])


def _composer(model: TunedModel, image: Tensor, kept: Array, blurred: Array) -> Callable[[slice], Tensor]:
    """Makes any slice of the pictures: the image where patches (count, h, w) are kept, else black or blurred."""
    black = baseline_images("black", image, model.transform)[0]
    blur = baseline_images("blur", image, model.transform)[0]

    def make(rows: slice) -> Tensor:
        fill = torch.where(torch.from_numpy(blurred[rows])[:, None, None, None], blur, black)
        return torch.where(torch.from_numpy(on_pixels(kept[rows], image))[:, None], image, fill)

    return make
