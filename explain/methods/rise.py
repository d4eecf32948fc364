"""RISE: the image through random masks, each mask weighted by the probability the model gives to what shows.

A black box: only forwards, no gradient and no look inside. Masks exist at full resolution only while their chunk runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from explain.baselines import baseline_images, check_baseline
from explain.errors import InputError
from explain.methods.base import METHODS, Maps, Method, check_whole
from explain.model import Trace


@METHODS.register("rise")
@dataclass(frozen=True)
class Rise(Method):
    """The target's expected probability, given that a pixel shows.

    A map has an offset: where nothing matters it is the mean probability of the masked images, so what counts is how
    the values differ. Estimated from `masks` masks, its standard error falls with their square root.

    Source: Petsiuk et al. 2018, arXiv 1806.07421, eq. 6 and section 3.2.

    Args:
        masks: forwards per image.
        cells: a mask is drawn on cells x cells and enlarged bilinearly.
        keep: probability that a cell shows the image.
        baseline: what shows elsewhere: "black", "mean" (mean colour: the paper's product in model space), "blur",
            "noise" (one uniform picture), or an image: a PIL image, a uint8 array (H, W, 3), or a tensor of pixels
            0-1 (3, H, W).
        seed: of the masks; every image of a size gets the same.
    """

    masks: int = 500
    cells: int = 7
    keep: float = 0.5
    baseline: Any = "black"
    seed: int = 0

    label: ClassVar[str] = "RISE"
    source: ClassVar[str] = "Petsiuk et al. 2018, arXiv 1806.07421"
    cost: ClassVar[str] = "one F per mask"
    signed: ClassVar[bool] = False
    random: ClassVar[bool] = True
    picture: ClassVar[Literal["positive", "signed"]] = "positive"

    def __post_init__(self) -> None:
        check_baseline(self.baseline)
        check_whole(1, masks=self.masks, cells=self.cells)
        check_whole(0, seed=self.seed)
        if not (isinstance(self.keep, float) and 0 < self.keep < 1):
            raise InputError(f"expected keep to be a probability between 0 and 1, got {self.keep!r}")

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`."""
        return self.each(trace, [targets])[0]

    def each(self, trace: Trace, targets: Sequence[Tensor]) -> list[Maps]:
        """See `Method`; the targets share every forward."""
        images, count = trace.images, len(trace.images)
        (start,) = baseline_images(self.baseline, images, trace.model.transform)
        wanted = torch.stack(list(targets), dim=1)
        grids, shifts = draw_masks(self.masks, self.cells, self.keep, self.seed)
        total = torch.zeros(len(targets), *images[:, 0].shape, device=images.device,
                            dtype=torch.promote_types(images.dtype, torch.float32))  # fmt: skip

        def work(chunk: slice) -> None:
            # mask by mask over all images, so that a chunk enlarges few masks
            index = torch.arange(chunk.start, chunk.stop, device=images.device)
            first, rows = chunk.start // count, index % count
            local = index // count - first
            drawn = slice(first, (chunk.stop - 1) // count + 1)
            masks = enlarge(grids[drawn].to(total), shifts[drawn], images.shape[-2:])
            shown = masks[local, None].to(images.dtype)
            behind = start if len(start) == 1 else start[rows]
            pictures = behind + shown * (images[rows] - behind)
            with torch.no_grad(), trace.passes.measuring("forward", len(index)):
                logits = trace.model(pictures)
            chances = logits.to(total.dtype).softmax(1).gather(1, wanted[rows])
            weights = total.new_zeros(len(targets), count, len(masks))
            weights[:, rows, local] = chances.T
            total.add_(torch.einsum("tbm,mhw->tbhw", weights, masks))

        trace.passes.run(work, count * self.masks, images.device, "forward")
        return [Maps(one) for one in total / (self.masks * self.keep)]


def draw_masks(masks: int, cells: int, keep: float, seed: int) -> tuple[Tensor, Tensor]:
    """Random cells (masks, cells, cells), True with probability `keep`, and shifts (masks, 2) in 0-1 of a cell."""
    # mask by mask, so that more masks begin with the same ones
    drawn = torch.rand(masks, cells * cells + 2, generator=torch.Generator().manual_seed(seed))
    grids, shifts = drawn.split([cells * cells, 2], dim=1)
    return grids.unflatten(1, (cells, cells)) < keep, shifts


def enlarge(grids: Tensor, shifts: Tensor, size: Sequence[int]) -> Tensor:
    """Masks (n, H, W) from cells (n, s, s): bilinear to one cell more than the image each way, then cropped.

    Args:
        grids: of the floating type of the masks.
        shifts: (n, 2), where the crop begins, in 0-1 of a cell.
        size: (H, W).
    """
    cells = grids.shape[-1]
    sides = [math.ceil(side / cells) for side in size]
    large = interpolate(grids[:, None], [(cells + 1) * side for side in sides], mode="bilinear", align_corners=False)
    rows, columns = (
        (torch.arange(length) + (shifts[:, axis, None] * sides[axis]).long()).to(grids.device)
        for axis, length in enumerate(size)
    )
    every = torch.arange(len(grids), device=grids.device)[:, None, None]
    return large[every, 0, rows[:, :, None], columns[:, None]]
