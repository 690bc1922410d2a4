"""A matrix -> levels and scales of a format's grid, chosen for what the matrix is multiplied by.

Sizes: m rows, k columns, w columns of a group, c scales tried. The error of rounding W to V that
inputs X (n,k) see is |X (W - V)^T|^2 = tr (W - V) H (W - V)^T, so H = X^T X is all they matter by.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.records import Array, Grid

# Tried for a group, of the scale that just holds its largest value. Few levels leave more aside.
FINE, COARSE = np.linspace(0.7, 1.1, 9), np.linspace(0.3, 1.0, 15)
DAMPING = 0.01  # of the mean diagonal of H, added to all of it; Frantar et al. 2022


def nearest(weights: Array, grid: Grid, importance: Array | None = None) -> Mapping[str, Array]:
    """Each weight to its nearest level, with the scales that make the least squared error.

    importance (k,): weight of each column's error, 1 by default
    """
    columns = weights.shape[1]
    weigh = np.ones(columns) if importance is None else importance
    precision = np.diag(1 / np.sqrt(np.maximum(weigh, 1e-30)))
    return _rounded(weights, precision, grid)


def compensated(weights: Array, moments: Array, grid: Grid) -> Mapping[str, Array]:
    """Column by column, what rounding one got wrong made up for by those still to be rounded.

    moments (k,k): H. Follows Frantar et al. 2022, GPTQ, with groups in order of what enters them,
    and each scale chosen by the error that is left after compensation.
    """
    return _rounded(weights, _factor(moments), grid)


def _factor(moments: Array) -> Array:
    """U (k,k), upper, with U^T U = H^-1."""
    damped = damp(moments)
    inverse = np.linalg.inv(damped)
    upper: Array = np.linalg.cholesky((inverse + inverse.T) / 2).T
    return upper


def damp(moments: Array) -> Array:
    """H with a little of its mean diagonal added, so that it has an inverse."""
    size = np.trace(moments) / len(moments)
    damped: Array = moments + np.eye(len(moments)) * (DAMPING * size or 1.0)
    return damped


def _rounded(weights: Array, upper: Array, grid: Grid) -> Mapping[str, Array]:
    rows, columns = weights.shape
    groups = -(-columns // grid.group)
    left = weights.astype(np.float64)
    levels = np.zeros((rows, groups * grid.group), np.int64)
    scale = np.zeros((rows, groups), np.float16)
    for g in range(groups):
        span = slice(g * grid.group, min((g + 1) * grid.group, columns))
        found, scale[:, g], wrong = _group(left[:, span], upper[span, span], grid)
        levels[:, span] = found
        left[:, span.stop :] -= wrong @ upper[span, span.stop :]
    return grid.store(levels, scale)


def _group(part: Array, upper: Array, grid: Grid) -> tuple[Array, Array, Array]:
    """Levels (m,w), scales (m,) and what the columns after it must make up for (m,w)."""
    tried = _scales(part, grid)  # (c,m)
    left = np.repeat(part[None], len(tried), 0)
    levels, wrong = np.empty_like(left), np.empty_like(left)
    wide = tried.astype(np.float64)
    safe = np.where(wide == 0, 1.0, wide)
    for j in range(part.shape[1]):
        levels[..., j] = np.rint(left[..., j] / safe).clip(grid.low, grid.high)
        wrong[..., j] = (left[..., j] - levels[..., j] * wide) / upper[j, j]
        left[..., j + 1 :] -= wrong[..., j, None] * upper[j, j + 1 :]
    best = np.square(wrong).sum(-1).argmin(0)
    rows = np.arange(part.shape[0])
    return levels[best, rows], tried[best, rows], wrong[best, rows]


def _scales(part: Array, grid: Grid) -> Array:
    """Scales to try for each row of a group, (c,m) float16; of both signs where ends differ."""
    peak = np.abs(part).max(1) / max(-grid.low, grid.high)
    signs = (1.0,) if grid.low == -grid.high else (1.0, -1.0)
    fractions = FINE if grid.high > 1 else COARSE
    return np.concatenate([s * fractions[:, None] * peak for s in signs]).astype(np.float16)


def matched(weights: Array, moments: Array, cross: Array) -> Array:
    """The matrix whose products with x are nearest to those of `weights` with x'.

    moments (k,k): sum of x x^T; cross (k,k): sum of x' x^T
    """
    found: Array = weights @ cross @ np.linalg.inv(damp(moments))
    return found
