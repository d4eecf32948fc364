"""The frozen stem of a model in training, and what it makes of each image, computed once.

Everything that lies before the first trained parameter gives the same numbers in every epoch, for every learning rate
and every seed. A linear probe's stem is the whole backbone, that of prompts in the upper blocks is the lower blocks.
It is split off here and run without a graph; `StemCache` keeps its outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from explain.attention import is_hooked
from explain.backbone import InputTransform
from explain.errors import InputError
from explain.files import sha256_json
from explain.model import ROWS_READ, TunedModel
from explain.tensor_files import sha256_tensors

Flip = tuple[bool, bool]
"""Whether a picture is flipped (left-right, up-down)."""

DROP_RATES = ("p", "drop_prob", "prob")
"""What dropout, drop path and patch dropout call the share that they drop."""

FLIP_CODE = torch.tensor([2, 1])


class Stem(nn.Module):
    """The frozen first part of a model: images (B, 3, H, W) in model space -> what the rest takes, (B, …).

    Runs without a graph and in evaluation mode, whatever mode the model is in.

    Args:
        model: a private twin of the model's first part.
        blocks: how many transformer blocks it holds.
        pooled: True when it goes on to the features that the head reads.
    """

    def __init__(self, model: TunedModel, blocks: int, *, pooled: bool) -> None:
        super().__init__()
        self.model, self.blocks, self.pooled = model, blocks, pooled
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        with torch.no_grad():  # not inference mode: the rest must be able to save the output for its backward
            output: Tensor = self.model(images)
        return output

    @cached_property
    def hash(self) -> str:
        """SHA-256 of its weights and of how far it reaches: equal hashes give equal outputs for equal images."""
        return sha256_json([self.blocks, self.pooled, sha256_tensors(dict(self.named_parameters()))])


def split_frozen(view: TunedModel) -> tuple[Stem | None, nn.Module]:
    """Split what is frozen before the first trained parameter from the rest.

    `rest(stem(images))` is `view(images)`, in logits and in trained gradients. Whatever the rest holds are the very
    parameters of the view, under the same names.

    Args:
        view: a model's `training_view()`, already on its device.

    Returns:
        The stem and the rest; (None, view) when no whole block is frozen before the first trained parameter, when
        something in there is drawn anew at each step, or when it is not certain that the split changes nothing.
    """
    if not _is_understood(view):
        return None, view
    at = _first_trained(view)
    if at == 0:
        return None, view
    stem, rest = view.split(at)
    if any(_varies(part) for part in stem.modules()):
        return None, view
    return Stem(stem, view.num_blocks if at is None else at, pooled=at is None), rest


def _is_understood(view: TunedModel) -> bool:
    """True when the forward is the one of timm's class, and nobody watches or replaced any of its steps."""
    vit = getattr(view, "vit", None)
    if type(vit) not in ROWS_READ or type(view).forward is not TunedModel.forward or view.autocast is not None:
        return False
    own = vars(vit).keys() & {"forward", "forward_features", "forward_head", "pool", "_pos_embed"}
    return not own and "forward" not in vars(view) and not any(map(is_hooked, view.modules()))


def _first_trained(view: TunedModel) -> int | None:
    """Index of the first block with a trained parameter, L for the final norm, None for the head; 0 before all."""
    depth = view.num_blocks
    behind = {"norm": depth, "fc_norm": depth, "attn_pool": depth, "head": depth + 1, "head_dist": depth + 1}
    places = [depth + 1]
    for name, value in view.named_parameters(remove_duplicate=False):  # a shared one trains at its first place
        if value.requires_grad:
            path = [*name.split("."), ""]
            in_block = path[:2] == ["vit", "blocks"]
            places.append(int(path[2]) if in_block else behind.get(path[1], 0) if path[0] == "vit" else 0)
    return min(places) if min(places) <= depth else None


def _varies(part: nn.Module) -> bool:
    """True when a module may give another output in training than in evaluation mode."""
    drops = any(isinstance(rate := getattr(part, name, None), int | float) and rate > 0 for name in DROP_RATES)
    return drops or hasattr(part, "running_mean")


@dataclass(frozen=True)
class StemCache:
    """A stem's outputs for a set of images, one per image and flip.

    They are computed in the order of the images and in chunks of one size, so they do not depend on the batches that
    training asks for: equal arguments give equal outputs, also in a training that was interrupted.

    Args:
        outputs: (variants · n, …), variant by variant.
        count: images n.
        slots: position of each flip among the variants, (4,), at 2 · left-right + up-down; -1 where there is none.
    """

    outputs: Tensor
    count: int
    slots: Tensor

    @classmethod
    def build(
        cls,
        stem: Callable[[Tensor], Tensor],
        pixels: Tensor,
        transform: InputTransform,
        *,
        variants: Sequence[Flip],
        batch_size: int,
        device: torch.device | str,
        limit_mib: float = 2048.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> "StemCache | None":
        """Run the stem over every image and flip; within the autocast that training runs in, if it does.

        Args:
            stem: from `split_frozen`.
            pixels: uint8 (n, 3, H, W).
            transform: of the model.
            variants: the flips that training may ask for.
            batch_size: images per pass of the stem.
            device: where the stem is and the outputs stay.
            limit_mib: largest size of all outputs together.
            progress: called with (outputs done, outputs in all) after each pass.

        Returns:
            The outputs, or None when they do not fit into `limit_mib`.

        Raises:
            InputError: no images, not uint8, or no variants.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or not len(pixels):
            raise InputError(f"expected pixels uint8 (n, 3, H, W), got {pixels.dtype} {tuple(pixels.shape)}")
        if not variants or len(set(variants)) < len(variants) or batch_size < 1:
            raise InputError(f"expected one flip or more, each once, and a batch of at least 1; got {list(variants)} "
                             f"and {batch_size}")  # fmt: skip
        sample = stem(transform.normalise(pixels[:1].to(device)))
        total = len(variants) * len(pixels)
        if total * sample.nbytes > limit_mib * 2**20:
            return None
        outputs = sample.new_empty((total, *sample.shape[1:]))
        slots, done = [-1] * 4, 0
        for slot, (left_right, up_down) in enumerate(variants):
            slots[2 * left_right + up_down] = slot
            sides = [side for side, flipped in ((-1, left_right), (-2, up_down)) if flipped]
            for chunk in pixels.split(batch_size):
                images = transform.normalise(chunk.to(device))
                outputs[done : done + len(chunk)] = stem(images.flip(sides) if sides else images)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        return cls(outputs, len(pixels), torch.tensor(slots))

    def rows(self, indices: Tensor, flips: Tensor) -> Tensor:
        """Outputs (b, …) of images, on the cache's device.

        Args:
            indices: positions among the images, (b,); best on the CPU, as the flips.
            flips: bool (b, 2), left-right and up-down, each one of the cached variants.

        Raises:
            InputError: a flip that is not cached.
        """
        slots = self.slots[flips.cpu().long() @ FLIP_CODE]
        if bool((slots < 0).any()):
            raise InputError("a flip was asked for that is not cached; build the cache with every variant in use")
        return self.outputs.index_select(0, (slots * self.count + indices.cpu()).to(self.outputs.device))

    @property
    def size_mib(self) -> float:
        """Size of the outputs."""
        return self.outputs.nbytes / 2**20
