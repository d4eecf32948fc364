"""TokenLayout: where each kind of token sits in a vision transformer's sequence.

Axes, named once for the whole project:

    B  images of a batch          N  tokens of a sequence        D  embedding dimension
    H, W  pixels                  P  prompt tokens               K  classes
    h, w  patch grid              L  transformer blocks

A sequence reads `[prefix | prompts | patches]`: the prefix is timm's (CLS, distillation and register tokens,
`num_prefix_tokens` of them), prompts are what Visual Prompt Tuning inserts, patches are row by row over the grid.
This file is the only one that slices tokens: nobody else writes `[:, 1:]`, takes a square root of N or knows a 14.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, cat, einsum, stack

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

    def spread(self, values: Tensor) -> Tensor:
        """Values (B, prefix + patches) of the tokens a block puts out, with 0 for the prompts: (B, total)."""
        gap = values.new_zeros(len(values), self.prompts, 1)
        return self.insert_prompts(values[..., None], gap)[..., 0]

    def roll_back(
        self, readout: Tensor, blocks: Sequence[Tensor], *, mixed: float = 1.0, kept: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Roll what the head reads back to the input: r <- mixed · r M + kept · r, from the last block to the first.

        Fresh prompts are constants that enter at a block, so the row is cut there.

        Args:
            readout: (B, prefix + patches).
            blocks: per block the matrix M (B, queries, total); see `queries`.
            mixed: weight of what the block brings in.
            kept: weight of what stays.

        Returns:
            The row at the input (B, total), and what was cut per block (B, L, P), where L is 0 without fresh prompts.
        """
        self.check_sequence(blocks[0].shape[-1])
        row, cut = self.spread(readout), []
        for block in reversed(blocks):
            row = mixed * einsum("bi,bij->bj", self.queries(row, block.shape[1]), block) + kept * row
            if self.fresh_prompts:
                cut.append(row[:, self.prompt_slice])
                row = row.clone()
                row[:, self.prompt_slice] = 0
        return row, stack(cut[::-1], dim=1) if cut else row.new_zeros(len(row), 0, self.prompts)

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
