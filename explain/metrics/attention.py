"""Attention: what the heads of a block look at, as one number per image and head.

Everything takes softmax probabilities of one block, (n, heads, queries, keys), and averages over the queries. Attention
shows what a head mixes, not what the model uses: registers and the CLS token carry global information that no distance
shows (arXiv 2505.05892), so these numbers describe a model and rank nothing.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from explain.errors import InputError

Array = npt.NDArray[np.float64]


def attention_distance(
    patch_attention: npt.ArrayLike, grid: tuple[int, int], patch_size: tuple[float, float] = (1, 1)
) -> Array:
    """How far the patches look: mean distance of a patch to the patches it attends to, weighted by the attention.

    What goes to other tokens is left out and the rest scaled up to 1; otherwise prompts, which lie nowhere, would make
    every distance shorter.

    Args:
        patch_attention: (n, heads, h · w, h · w), rows of the patches over the columns of the patches; rows may sum to
            less than 1.
        grid: patch rows and columns (h, w).
        patch_size: height and width of a patch, in pixels for a distance in pixels.

    Returns:
        (n, heads), in units of `patch_size`; NaN where a patch gives nothing to any patch.

    Raises:
        InputError: not the attention of that grid's patches.

    Source: Dosovitskiy et al. 2021, arXiv 2010.11929, §4.5 (mean attention distance).
    """
    attention = _attention(patch_attention)
    patches = grid[0] * grid[1]
    if attention.shape[2:] != (patches, patches):
        raise InputError(f"expected attention of {patches} patches to {patches} patches, got {attention.shape}")
    places = np.stack(np.divmod(np.arange(patches), grid[1]), axis=1) * np.asarray(patch_size, dtype=np.float64)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    found: Array = _share(np.einsum("nhqk,qk->nhq", attention, distances), attention.sum(axis=3)).mean(axis=2)
    return found


def attention_entropy(attention: npt.ArrayLike) -> Array:
    """How widely attention is spread over the keys it is given: 0 on one key, 1 the same on all.

    The entropy of each row is divided by the log of the number of keys, so that models with more tokens can be
    compared. Given some of the keys only, such as the patches, rows are scaled up to 1 first.

    Args:
        attention: (n, heads, queries, keys), at least 2 keys for a defined result; rows may sum to less than 1.

    Returns:
        (n, heads), 0 to 1; NaN with a single key, or where a row is all 0.
    """
    rows = _attention(attention)
    if rows.shape[3] < 2:
        return np.full(rows.shape[:2], np.nan)
    shares = _share(rows, rows.sum(axis=3, keepdims=True))
    spread: Array = entr(shares).sum(axis=3).mean(axis=2) / np.log(rows.shape[3])
    return spread


def attention_mass(attention: npt.ArrayLike, keys: npt.ArrayLike) -> Array:
    """Share of the attention that goes to some of the keys, such as the prompts; by chance, their share of all keys.

    Args:
        attention: (n, heads, queries, keys), rows summing to 1.
        keys: bool (keys,), those that count.

    Returns:
        (n, heads), 0 to 1.

    Raises:
        InputError: no truth value per key.
    """
    rows, chosen = _attention(attention), np.asarray(keys)
    if chosen.dtype != bool or chosen.shape != rows.shape[3:]:
        raise InputError(f"expected one bool for each of {rows.shape[3]} keys, got {chosen.dtype} {chosen.shape}")
    mass: Array = rows[..., chosen].sum(axis=3).mean(axis=2)
    return mass


def _share(values: Array, total: Array) -> Array:
    return np.asarray(np.divide(values, total, out=np.full(values.shape, np.nan), where=total > 0))


def _attention(values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 4 or not array.size:
        raise InputError(f"expected attention (n, heads, queries, keys), got shape {array.shape}")
    if not (array >= 0).all():
        raise InputError("expected attention probabilities, at least 0; got negative numbers or NaN")
    return array
