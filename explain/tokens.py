"""TokenLayout: where each kind of token sits in a vision transformer's sequence.

Axes, named once for the whole project:

    B  images of a batch          N  tokens of a sequence        D  embedding dimension
    H, W  pixels                  P  prompt tokens               K  classes
    h, w  patch grid              L  transformer blocks

A sequence reads `[prefix | prompts | patches]`: the prefix is timm's (CLS, distillation and register tokens,
`num_prefix_tokens` of them), prompts are what Visual Prompt Tuning inserts, patches are row by row over the grid.
This file is the only one that slices tokens: nobody else writes `[:, 1:]`, takes a square root of N or knows a 14.
"""

from dataclasses import dataclass, replace

from torch import Tensor, cat

from explain.errors import TokenLayoutError


@dataclass(frozen=True)
class TokenLayout:
    """The order of tokens inside the transformer blocks.

    Args:
        grid: patch rows and columns (h, w).
        prefix: tokens before the prompts (CLS, distillation, registers), as timm counts them.
        prompts: prompt tokens P that a tuning inserts after the prefix; 0 without prompt tuning.
        fresh_prompts: True when every block gets its own prompts and throws away what they became
            (VPT-Deep); False when prompts enter once and travel through all blocks (VPT-Shallow).
    """

    grid: tuple[int, int]
    prefix: int = 1
    prompts: int = 0
    fresh_prompts: bool = False

    def __post_init__(self) -> None:
        if min(self.grid) < 1 or self.prefix < 0 or self.prompts < 0:
            raise TokenLayoutError(f"a layout needs a grid of at least 1x1 and counts of at least 0; got {self}")

    @property
    def patches(self) -> int:
        """Number of patch tokens, h * w."""
        return self.grid[0] * self.grid[1]

    @property
    def total(self) -> int:
        """Tokens inside a block: prefix, prompts and patches."""
        return self.prefix + self.prompts + self.patches

    @property
    def prompt_slice(self) -> slice:
        """Where the prompts sit inside a block."""
        return slice(self.prefix, self.prefix + self.prompts)

    @property
    def patch_slice(self) -> slice:
        """Where the patches sit inside a block."""
        return slice(self.prefix + self.prompts, self.total)

    def with_prompts(self, prompts: int, *, fresh: bool) -> "TokenLayout":
        """This layout after a tuning inserted `prompts` tokens."""
        return replace(self, prompts=prompts, fresh_prompts=fresh)

    def with_grid(self, grid: tuple[int, int]) -> "TokenLayout":
        """This layout for another input size."""
        return replace(self, grid=grid)

    def insert_prompts(self, tokens: Tensor, prompts: Tensor) -> Tensor:
        """Put prompts (B, P, D) behind the prefix of tokens (B, prefix + patches, D)."""
        self._check(tokens.shape[1], self.total - self.prompts)
        return cat((tokens[:, : self.prefix], prompts, tokens[:, self.prefix :]), dim=1)

    def drop_prompts(self, tokens: Tensor) -> Tensor:
        """Take the prompts out again: (B, total, D) -> (B, prefix + patches, D)."""
        self._check(tokens.shape[1], self.total)
        return cat((tokens[:, : self.prefix], tokens[:, self.patch_slice]), dim=1)

    def patch_tokens(self, tokens: Tensor) -> Tensor:
        """The patches of (B, N, ...), with or without prompts in the sequence -> (B, h * w, ...)."""
        count = tokens.shape[1]
        if count not in (self.total, self.total - self.prompts):
            self._check(count, self.total)
        return tokens[:, count - self.patches :]

    def to_grid(self, values: Tensor) -> Tensor:
        """Patch values (B, N, ...) or (B, h * w, ...) on the grid -> (B, h, w, ...).

        Raises:
            TokenLayoutError: N is neither the whole sequence nor the patches alone.
        """
        if values.shape[1] != self.patches:
            values = self.patch_tokens(values)
        return values.reshape(values.shape[0], *self.grid, *values.shape[2:])

    def queries(self, values: Tensor, count: int) -> Tensor:
        """Those of (B, total) that belong to the `count` queries a block computed.

        A block computes all tokens; or all but fresh prompts, which only serve as keys; or, when last, only the first
        tokens of the prefix, which are what the head reads.
        """
        if count == self.total:
            return values
        if count == self.total - self.prompts:
            return self.drop_prompts(values[..., None])[..., 0]
        if count > self.prefix:
            self._check(count, self.total)
        return values[:, :count]

    def check_sequence(self, count: int) -> None:
        """Raise TokenLayoutError unless `count` tokens are what a block sees."""
        self._check(count, self.total)

    def _check(self, count: int, expected: int) -> None:
        if count != expected:
            raise TokenLayoutError(
                f"expected {expected} tokens ({self.prefix} prefix + {self.prompts} prompts + "
                f"{self.grid[0]}x{self.grid[1]} patches = {self.total} inside a block), got {count}; "
                "does the layout belong to this model and input size?"
            )
