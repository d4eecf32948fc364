"""BackboneCard: where a pretrained backbone comes from."""

from explain.record import Record


class BackboneCard(Record):
    """Provenance of a backbone.

    Args:
        spec: the name it was asked for by.
        architecture: timm's name of the architecture.
        sha256: hash over every backbone tensor (the classification head excluded), at its native input size.
        source: where the weights come from.
        licence: their licence, or "not stated".
        tuned_for: what the weights were trained for.
        mean, std: input normalisation per channel, for pixels in 0-1.
        interpolation: how images are resized to the input.
        native_size: side of the square input the weights were made for, in pixels.
    """

    spec: str
    architecture: str
    sha256: str
    source: str
    licence: str
    tuned_for: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    native_size: int
