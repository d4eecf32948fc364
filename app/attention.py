"""Attention of one image in one model: what the worker computes for the page "Attention", and what it keeps.

One forward shows the attention of all blocks and heads. It is kept whole, as float32 (L, heads, N, N), where that takes
no more than `KEPT_BYTES`: then another query or another rollout costs no forward. A model with more tokens or heads
keeps only the rows and maps that were asked for, and runs again for others; half precision would save a factor of two
and give rollouts that are not those of `explain.attribute`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from app import maps, worker
from app.opening import Opened
from app.worker import Ticket, Work
from explain.archive.manifest import Entry
from explain.engine import open_image
from explain.errors import Cancelled, ExplainError, InputError
from explain.methods.base import METHODS
from explain.model import Trace, TunedModel
from explain.tokens import TokenLayout

Floats = npt.NDArray[np.float32]

KEPT_BYTES = 64 << 20
"""Attention of one image and model that is kept whole at most."""

HEAD = "cls"
"""The query of what the head reads: the CLS token, where the head reads that."""

FUSIONS = ("mean", "max", "min")
ROLLOUT = "attention_rollout"


@dataclass(frozen=True)
class Captured:
    """The attention of one image.

    Args:
        layout: the tokens.
        blocks: per block (heads, queries, N): of the forward that explanations use, which leaves out what nothing
            reads; see `TokenLayout.queries`.
        last: the last block's attention with all its queries, (heads, prefix + patches or more, N).
        read: how much of each token of the last block's output the head reads, (prefix + patches,), sums to 1.
        pool: attention of an attention-pooling head, (heads, queries, tokens), else None.
        cls_tokens: how many of the prefix are CLS tokens, 0 or 1; the rest are registers and the like.
        picture: what the model saw, uint8 (H, W, 3).
    """

    layout: TokenLayout
    blocks: tuple[Floats, ...]
    last: Floats
    read: Floats
    pool: Floats | None
    cls_tokens: int
    picture: npt.NDArray[np.uint8]

    @property
    def fits(self) -> bool:
        """Whether this is little enough to be kept."""
        return sum(block.nbytes for block in (*self.blocks, self.last)) <= KEPT_BYTES


@dataclass(frozen=True)
class QueryRows:
    """Where one query token looks, in every block and head.

    Args:
        layout: the tokens.
        rows: per block (heads, N), with N as many tokens as the layout has `at` that block; each row sums to 1.
        cls_tokens: how many of the prefix are CLS tokens, 0 or 1.
        reads_cls: whether what the head reads is the CLS token and nothing else.
        picture: what the model saw, uint8 (H, W, 3).
    """

    layout: TokenLayout
    rows: tuple[Floats, ...]
    cls_tokens: int
    reads_cls: bool
    picture: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Rollouts:
    """Attention rollout to every block.

    Args:
        maps: (L, h, w), rolled back from what the head would read of block 1, 2, … L; the last is the method's map.
        extras: what the method measures beside its map, each (L,).
    """

    maps: Floats
    extras: dict[str, npt.NDArray[np.float32]]


def capture(model: TunedModel, image: Entry, cancelled: Callable[[], bool] = lambda: False) -> Captured:
    """Run a model on an image and record its attention.

    Raises:
        CaptureError: the model has no attention, or it cannot be seen.
        Cancelled: nobody wants it any more.
    """
    pixels = model.transform.pixels(open_image(image))
    images = model.transform.normalise(pixels)[None].to(model.device, model.dtype)
    with torch.inference_mode(False), torch.no_grad():
        replica = model.replica()
        trace = _record(replica, images)
        if cancelled():
            raise Cancelled("the attention of this image was no longer wanted")
        last = trace.attention[-1]
        if last.shape[2] < trace.layout.prefix + trace.layout.patches:
            # the head reads none of the other rows: only a layer behind the last attention has them computed
            last = _record(replica, images, ("norm",)).attention[-1]
    pool = trace.pool_attention
    return Captured(
        trace.layout, tuple(map(_array, trace.attention)), _array(last), _array(trace.readout()),
        None if pool is None else _array(pool), int(model.vit.has_class_token), pixels.permute(1, 2, 0).numpy(),
    )  # fmt: skip


def _record(replica: TunedModel, images: torch.Tensor, layers: tuple[str, ...] = ()) -> Trace:
    with replica.capture(layers=layers) as trace:
        replica(images)
    return trace


def _array(values: torch.Tensor) -> Floats:
    """The first of a batch, without a copy where it can be."""
    return values.detach()[0].float().cpu().numpy()


def query_rows(captured: Captured, query: str) -> QueryRows:
    """Where a query looks.

    Args:
        captured: the attention.
        query: `HEAD`, or a patch as `patch_name` names it.

    Raises:
        InputError: no such patch.
    """
    layout = captured.layout
    weights = torch.from_numpy(captured.read)[None] if query == HEAD else _one_patch(layout, query)
    rows = []
    for number, block in enumerate((*captured.blocks[:-1], captured.last)):
        inside, heads = layout.at(number), torch.from_numpy(block)
        inside.check_sequence(heads.shape[-1])
        chosen = inside.queries(inside.spread(weights), heads.shape[1])
        rows.append(torch.einsum("bq,hqn->hn", chosen, heads).numpy())
    reads_cls = bool(captured.cls_tokens and captured.read[0] == 1)
    return QueryRows(layout, tuple(rows), captured.cls_tokens, reads_cls, captured.picture)


def patch_name(row: int, column: int) -> str:
    """A patch as a link has it: "r3c5" is row 3, column 5, from 1."""
    return f"r{row + 1}c{column + 1}"


def patch_of(query: str) -> tuple[int, int] | None:
    """Row and column from 0 of a patch's name; None for other text."""
    found = re.fullmatch("r([1-9][0-9]{0,3})c([1-9][0-9]{0,3})", query)
    return None if found is None else (int(found[1]) - 1, int(found[2]) - 1)


def _one_patch(layout: TokenLayout, query: str) -> torch.Tensor:
    """1 at one patch, (1, prefix + patches)."""
    place = patch_of(query)
    if place is None or place[0] >= layout.grid[0] or place[1] >= layout.grid[1]:
        raise InputError(f"expected the query to be {HEAD} or a patch from r1c1 to {patch_name(*_last(layout))}, "
                         f"got {query!r}")  # fmt: skip
    patches = torch.zeros(1, *layout.grid)
    patches[0, place[0], place[1]] = 1
    return torch.cat((torch.zeros(1, layout.prefix), patches.flatten(1)), dim=1)


def _last(layout: TokenLayout) -> tuple[int, int]:
    return layout.grid[0] - 1, layout.grid[1] - 1


def roll_out(
    model: TunedModel, captured: Captured, fusion: str, residual: float, ticket: Ticket | None = None
) -> Rollouts:
    """The rollout from what the head would read of every block, by the method's own code.

    Args:
        model: whose attention it is.
        captured: the attention.
        fusion: "mean", "max" or "min" over heads.
        residual: weight of the identity, 0-1.
        ticket: told how far it is, and asked whether to go on.
    """
    method, count = METHODS.create(ROLLOUT, head_fusion=fusion, residual=residual), len(captured.blocks)
    trace = Trace(
        model, images=torch.empty(1, 3, *captured.picture.shape[:2]),
        attention=[torch.from_numpy(block)[None] for block in captured.blocks],
        pool_attention=None if captured.pool is None else torch.from_numpy(captured.pool)[None],
    )  # fmt: skip
    found, extras = [], []
    for upto in range(1, count + 1):
        if ticket is not None and ticket.cancelled():
            raise Cancelled("the rollout of this image was no longer wanted")
        part = method(replace(trace, attention=trace.attention[:upto]), torch.zeros(1, dtype=torch.long))
        found.append(np.asarray(part.values[0], np.float32))
        extras.append({name: float(value[0]) for name, value in part.extras.items() if value.ndim == 1})
        if ticket is not None:
            ticket.say(upto, count)
    return Rollouts(
        np.stack(found), {name: np.array([one[name] for one in extras], np.float32) for name in extras[0]}
    )  # fmt: skip


# ---- asking the worker


def ready_rows(opened: Opened, image: Entry, model: str, query: str) -> QueryRows | ExplainError | None:
    """A query's rows, or why there are none; None when they are not there yet. Runs no model."""
    whole = worker.the_worker().result(_key("attention", opened, image, model))
    if isinstance(whole, Captured):
        try:
            return query_rows(whole, query)
        except InputError as error:
            return error
    found: QueryRows | ExplainError | None = worker.the_worker().result(_rows_key(opened, image, model, query))
    return found


def rows_work(opened: Opened, image: Entry, model: str, query: str, what: str) -> Work:
    """What the worker has to do for a query's rows; `what` is that in words."""
    found = _finder(opened, image, model)
    return Work(_rows_key(opened, image, model, query), what, lambda ticket: query_rows(found(ticket)[1], query))


def ready_rollouts(
    opened: Opened, image: Entry, model: str, fusion: str, residual: float
) -> Rollouts | ExplainError | None:
    """The rollouts, or why there are none; None when they are not there yet."""
    key = _rollouts_key(opened, image, model, fusion, residual)
    found: Rollouts | ExplainError | None = worker.the_worker().result(key)
    return found


def rollouts_work(opened: Opened, image: Entry, model: str, fusion: str, residual: float, what: str) -> Work:
    """What the worker has to do for the rollouts; `what` is that in words."""
    found = _finder(opened, image, model)
    key = _rollouts_key(opened, image, model, fusion, residual)
    return Work(key, what, lambda ticket: roll_out(*found(ticket), fusion, residual, ticket))


def _finder(opened: Opened, image: Entry, model: str) -> Callable[[Ticket], tuple[TunedModel, Captured]]:
    """Gives the model and its attention on the image, kept or computed."""
    run, the_worker, key = opened.run(model), worker.the_worker(), _key("attention", opened, image, model)

    def find(ticket: Ticket) -> tuple[TunedModel, Captured]:
        assert run is not None  # the page asks for models that are here
        network, kept = maps.load_model(run), the_worker.result(key)
        if isinstance(kept, Captured):
            return network, kept
        captured = capture(network, image, ticket.cancelled)
        if captured.fits:
            the_worker.keep(key, captured)
        return network, captured

    return find


def _rows_key(opened: Opened, image: Entry, model: str, query: str) -> tuple[Any, ...]:
    return (*_key("attention rows", opened, image, model), query)


def _rollouts_key(opened: Opened, image: Entry, model: str, fusion: str, residual: float) -> tuple[Any, ...]:
    return (*_key("rollouts", opened, image, model), fusion, residual)


def _key(kind: str, opened: Opened, image: Entry, model: str) -> tuple[Any, ...]:
    run = opened.run(model)
    return (kind, run.manifest.identity if run else "", image.sha256 or str(image.path))
