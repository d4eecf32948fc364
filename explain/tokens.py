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
        fresh_prompts: True when every prompted block gets its own prompts and throws away what they became
            (VPT-Deep); False when prompts enter at the first prompted block and travel to the last (VPT-Shallow).
        prompted: the blocks that see prompts, without gaps; None for all. See `at`.
    """

    grid: tuple[int, int]
    prefix: int = 1
    prompts: int = 0
    fresh_prompts: bool = False
    prompted: range | None = None

    def __post_init__(self) -> None:
        if min(self.grid) < 1 or self.prefix < 0 or self.prompts < 0:
            raise TokenLayoutError(f"a layout needs a grid of at least 1x1 and counts of at least 0; got {self}")

    @property
    def patches(self) -> int:
        """Number of patch tokens, h * w."""
        return self.grid[0] * self.grid[1]

    @property
    def total(self) -> int:
        """Tokens inside a prompted block: prefix, prompts and patches."""
        return self.prefix + self.prompts + self.patches

    @property
    def prompt_slice(self) -> slice:
        """Where the prompts sit inside a block."""
        return slice(self.prefix, self.prefix + self.prompts)

    @property
    def patch_slice(self) -> slice:
        """Where the patches sit inside a block."""
        return slice(self.prefix + self.prompts, self.total)

    def with_prompts(self, prompts: int, *, fresh: bool, blocks: range | None = None) -> "TokenLayout":
        """This layout after a tuning inserted `prompts` tokens in a range of blocks, or in all."""
        return replace(self, prompts=prompts, fresh_prompts=fresh, prompted=blocks)

    def with_grid(self, grid: tuple[int, int]) -> "TokenLayout":
        """This layout for another input size."""
        return replace(self, grid=grid)

    def at(self, block: int) -> "TokenLayout":
        """The tokens inside one block, counted from 0: this layout, or without prompts where there are none."""
        return self if self.prompted is None or block in self.prompted else replace(self, prompts=0)

    def enters(self, block: int) -> bool:
        """True when prompts come in before this block: those of its own, or those that travel from here."""
        if not self.at(block).prompts:
            return False
        return self.fresh_prompts or block == (0 if self.prompted is None else self.prompted.start)

    def insert_prompts(self, tokens: Tensor, prompts: Tensor) -> Tensor:
        """Put prompts (B, P, ...) behind the prefix of tokens (B, prefix + patches, ...)."""
        self._check(tokens.shape[1], self.total - self.prompts)
        return cat((tokens[:, : self.prefix], prompts, tokens[:, self.prefix :]), dim=1)

    def drop_prompts(self, tokens: Tensor) -> Tensor:
        """Take the prompts out again: (B, total, ...) -> (B, prefix + patches, ...)."""
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
        return self.insert_prompts(values, values.new_zeros(len(values), self.prompts))

    def roll_back(
        self, readout: Tensor, blocks: Sequence[Tensor], *, mixed: float = 1.0, kept: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Roll what the head reads back to the input: r <- mixed · r M + kept · r, from the last block to the first.

        Prompts are constants that enter at a block, so the row is cut there.

        Args:
            readout: (B, prefix + patches).
            blocks: per block the matrix M (B, queries, tokens `at` that block); see `queries`.
            mixed: weight of what the block brings in.
            kept: weight of what stays.

        Returns:
            The row at the input (B, prefix + patches), and what the prompts got, (B, E, P), one entry for each of the
            E blocks at which prompts enter: as many as see prompts when these are fresh, one when they travel, 0
            without.
        """
        row, cut = readout, []
        for index in reversed(range(len(blocks))):
            inside, block = self.at(index), blocks[index]
            inside.check_sequence(block.shape[-1])
            if row.shape[1] != inside.total:  # prompts leave at the end of this block
                row = inside.spread(row)
            row = mixed * einsum("bi,bij->bj", inside.queries(row, block.shape[1]), block) + kept * row
            if self.enters(index):
                cut.append(row[:, self.prompt_slice])
                row = self.drop_prompts(row)
        return row, stack(cut[::-1], dim=1) if cut else row.new_zeros(len(row), 0, self.prompts)

    def queries(self, values: Tensor, count: int) -> Tensor:
        """Those of (B, total) that belong to the `count` queries a block computed.

        A block computes all tokens; or all but fresh prompts, which only serve as keys; or, when last, only the first
        tokens of the prefix, which are what the head reads.
        """
        if count == self.total:
            return values
        if count == self.total - self.prompts:
            return self.drop_prompts(values)
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
