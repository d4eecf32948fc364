"""BitFit: which parameters train, by name and number."""

from tiny_vits import BASE
from tuned_cases import tuned

WIDTH, HIDDEN, DEPTH, CLASSES = BASE["embed_dim"], int(BASE["embed_dim"] * BASE["mlp_ratio"]), BASE["depth"], 2


def test_exactly_the_biases_and_the_head_train() -> None:
    model = tuned("bitfit", {}, "cls")
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    biases = {f"vit.blocks.{block}.{part}.bias" for block in range(DEPTH) for part in parts}
    assert set(model.trained_state()) == biases | {
        "vit.patch_embed.proj.bias", "vit.norm.bias", "vit.head.weight", "vit.head.bias",
    }  # fmt: skip


def test_their_number_is_closed_form() -> None:
    stored = tuned("bitfit", {}, "cls").trained_state()
    biases = DEPTH * (7 * WIDTH + HIDDEN) + 2 * WIDTH
    assert sum(value.numel() for value in stored.values()) == biases + (WIDTH + 1) * CLASSES
