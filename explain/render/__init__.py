"""Pictures of maps and numbers. Colours of the arms are chosen here once, so every chart agrees."""

ARM_COLOURS = {
    "vpt": "#0072B2",
    "ft": "#D55E00",
    "linear": "#6B7280",
    "vpt_shallow": "#56B4E9",
    "mixed": "#009E73",
    "ft_then_pt": "#CC79A7",
    "lora": "#E69F00",
    "bitfit": "#8C564B",
}
"""Okabe and Ito's colours, told apart with every kind of colour vision; grey for the reference, brown for the last."""

OTHER_COLOURS = ("#332288", "#882255", "#117733", "#AA4499")
"""Of Tol's muted scheme, for arms that are not known here."""


def arm_colour(arm: str) -> str:
    """The colour of an arm, as #rrggbb; an arm unknown here gets one of four others, by its name."""
    return ARM_COLOURS.get(arm) or OTHER_COLOURS[sum(arm.encode()) % len(OTHER_COLOURS)]
