"""Quadrature on [0, 1]: where to look along a path, and how much each look counts. Weights sum to 1."""

from functools import cache
from typing import Any

import numpy as np


@cache
def gauss_legendre(count: int) -> tuple[Any, Any]:
    """Points and weights (count,) of the Gauss-Legendre rule: the most exact for a given number of points."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return (points + 1) / 2, weights / 2


@cache
def clenshaw_curtis(intervals: int) -> tuple[Any, Any]:
    """Points (1 - cos(kπ/n)) / 2, k = 0 … n, and weights (n + 1,) of the Clenshaw-Curtis rule, for an even n.

    The points of n are among those of 2n, and for smooth functions it is nearly as exact as Gauss-Legendre.

    Source: Trefethen 2008, SIAM Review 50(1), "Is Gauss quadrature better than Clenshaw-Curtis?".
    """
    angles = np.pi * np.arange(intervals + 1) / intervals
    even = np.arange(2, intervals + 1, 2)
    factors = 2 / (1 - even**2.0)
    factors[-1] /= 2  # the highest cosine is counted once
    weights = (1 + np.cos(np.outer(angles, even)) @ factors) / intervals
    weights[[0, -1]] /= 2
    return (1 - np.cos(angles)) / 2, weights
