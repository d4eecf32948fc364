"""Tuning: how a pretrained vision transformer is adapted, as one file per way.

A tuning is a frozen dataclass of its options. `apply` freezes what must not train, swaps modules in place and returns
the token layout that results. `tune` puts a new head on a copy of the backbone and applies one. A new tuning is a class
with `label`, `source` and `apply` on the base `Tuning`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from explain.backbone import load_backbone
from explain.errors import InputError, IntegrityError
from explain.model import TunedModel
from explain.registry import Registry
from explain.tokens import TokenLayout
from explain.wrapping import wrap

HEAD_STD = 0.01


class Tuning:
    """One way of tuning; its dataclass fields are its options.

    Class attributes say what others must know, so that nobody asks a tuning for its name:

    `label` title; `source` paper; `learning_rates` what a search tries when nothing else is said; `continues` it goes
    on from the trained weights of another run (`start` of `tune`) and may freeze them, so a run stores every parameter,
    not only those that train.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    source: ClassVar[str]
    continues: ClassVar[bool] = False
    learning_rates: ClassVar[tuple[float, ...]] = (1e-3, 5e-3, 3e-2)

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Freeze and swap modules of `vit` in place.

        Args:
            vit: the model, every parameter trainable, with its new head.
            layout: its tokens before the tuning.
            generator: source of the first values of new parameters.

        Returns:
            The layout after the tuning.
        """
        raise NotImplementedError

    def rate_scale(self, name: str, blocks: int) -> float:
        """What the learning rate of a parameter is multiplied by.

        Args:
            name: the parameter's name inside the timm model, such as "blocks.0.attn.qkv.weight".
            blocks: transformer blocks L of the model.
        """
        return 1.0


TUNINGS: Registry[Tuning] = Registry("tuning", "explain.tuning")


def tune(
    backbone: VisionTransformer | str,
    tuning: str,
    *,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    seed: int = 0,
    expect_sha256: str | None = None,
    start: Mapping[str, Tensor] | None = None,
    **options: Any,
) -> TunedModel:
    """A tuned model, not yet trained.

    Args:
        backbone: a timm VisionTransformer (copied, never changed) or a spec for `load_backbone`.
        tuning: registered name: "prompt", "full", "linear", …
        class_names: names of the classes; a new head of that size is put on. None keeps the model's own head.
        image_size: side of the input in pixels, with a spec only.
        seed: of the head's and the prompts' first values; equal seeds give equal heads whatever the tuning.
        expect_sha256: the backbone's hash that stored weights were trained on.
        start: `trained_state()` of a fully tuned model of this backbone and these classes: the values that backbone
            and head begin with. None begins with the backbone's own and a new head.
        **options: the tuning's options, such as num_tokens=10.

    Raises:
        UnknownNameError: no such tuning.
        InputError: an option the tuning does not have, not a timm ViT, or a start for a tuning that freezes the
            backbone and stores only what it trains.
        IntegrityError: the backbone is not the expected one, or `start` holds other names or shapes.
    """
    plugin = TUNINGS.create(tuning, **options)
    card = None
    if isinstance(backbone, str):
        vit, card = load_backbone(backbone, image_size)
        if expect_sha256 is not None and card.sha256 != expect_sha256:
            raise IntegrityError(
                f"backbone {backbone!r} has hash {card.sha256[:16]}…, but the weights were trained on "
                f"{expect_sha256[:16]}…; use the same backbone file as in training"
            )
    elif image_size is not None:
        raise InputError("image_size is for a backbone given by name; build the timm model at that size instead")
    else:
        if not isinstance(backbone, VisionTransformer):
            raise InputError(f"expected a timm VisionTransformer, got {type(backbone).__name__}; "
                             "only a vision transformer can be tuned")  # fmt: skip
        vit = copy.deepcopy(wrap(backbone).vit)
    vit.requires_grad_(True)
    if class_names is not None:
        if not class_names:
            raise InputError("expected at least one class name, got none")
        _new_head(vit, len(class_names), seed)
    base = wrap(vit)
    if start is not None:
        base.load_trained(start)
    # a stream of its own, so that the head's values do not depend on how many prompts a tuning draws
    layout = plugin.apply(vit, base.layout, Generator().manual_seed(seed + 1))
    if start is not None and not plugin.continues and not all(value.requires_grad for value in vit.parameters()):
        raise InputError(f"tuning {tuning!r} freezes the backbone and stores only what it trains, so a run that starts "
                         "from other weights could not be read back; use one that trains or stores all weights, "
                         "such as 'full' or 'ft_then_pt'")  # fmt: skip
    recorded = {field.name: getattr(plugin, field.name) for field in fields(plugin)}  # type: ignore[arg-type]
    return TunedModel(
        vit, layout, base.transform, class_names=class_names, tuning=(tuning, recorded), card=card,
        stores_all=plugin.continues,
    ).train(vit.training)  # fmt: skip


def _new_head(vit: VisionTransformer, classes: int, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):  # timm draws values that are replaced below
        vit.reset_classifier(classes)
    generator = Generator().manual_seed(seed)
    for head in classification_heads(vit):
        nn.init.zeros_(head.bias)
        with torch.no_grad():
            head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * HEAD_STD)


def train_only_head(vit: VisionTransformer) -> None:
    """Freeze everything but the classification head."""
    vit.requires_grad_(False)
    for head in classification_heads(vit):
        head.requires_grad_(True)


def classification_heads(vit: VisionTransformer) -> tuple[nn.Linear, ...]:
    """The head, or both heads of a distilled model."""
    heads = vit.get_classifier()
    return heads if isinstance(heads, tuple) else (heads,)
