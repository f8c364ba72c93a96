"""Leading eigenpairs of a kinship from products K Q alone: randomized block Krylov with Rayleigh–Ritz.

Sources: Halko, Martinsson & Tropp 2011 (randomized range finder, 0909.4061, algorithm 4.4); Musco & Musco
2015 (block Krylov, 1504.05477).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasklmm.numerics.genotypes import Method, Samples, standardise
from dasklmm.numerics.records import Float

# Columns of a block beyond the pairs that are wanted.
OVERSAMPLING = 10
# Basis blocks before a restart from the best pairs.
BASIS_BLOCKS = 8


@dataclass(frozen=True, eq=False)
class Product:
    """Sum of Z^T Z Q over some variants.

    Attributes
    ----------
    matrix : ndarray (sample, column), float64
    n_variants : int
        Variants that vary, of which Z has a row each.
    trace : float
        Trace of Z^T Z.
    """

    matrix: Float
    n_variants: int
    trace: float

    def __add__(self, other: Product) -> Product:
        """Sum over both sets of variants."""
        return Product(
            self.matrix + other.matrix, self.n_variants + other.n_variants, self.trace + other.trace
        )


# Variants standardised at a time: 2048 rows of 5,000 samples are 40 MB in float32.
_TILE = 2048


def gram_product(
    block: NDArray[Any],
    q: Float,
    method: Method,
    dtype: Any = np.float64,
    samples: Samples = None,
) -> Product:
    """Z^T (Z Q) of a block of genotypes, without forming Z^T Z.

    Parameters
    ----------
    block : ndarray (variant, sample)
    q : ndarray (sample, column)
    method : {"rrm", "grm", "centered"}
    dtype : float32 or float64
        Of the products; tiles are summed in float64.
    samples : ndarray of int, optional
        Columns of `block` to use.

    Returns
    -------
    Product
        Cost 4 variant sample column flop.
    """
    n = block.shape[1] if samples is None else len(samples)
    total, kept, trace = np.zeros((n, q.shape[1])), 0, 0.0
    columns = q.astype(dtype, copy=False)
    for start in range(0, block.shape[0], _TILE):
        z, count = standardise(block[start : start + _TILE], method, dtype, samples)
        kept += count
        if count:
            total += z.T @ (z @ columns)
            trace += float(np.einsum("ij,ij->i", z, z).sum(dtype=np.float64))
    return Product(total, kept, trace)


@dataclass
class Krylov:
    """Growing orthonormal basis B and its image K B; its state between passes over the genotypes.

    Parameters
    ----------
    n, rank : int
    oversampling : int
        Columns beyond `rank`; they speed up the last pairs.
    seed : int
        Of the random start; equal seeds give equal pairs.
    blocks : int
        Basis blocks before a restart from the best pairs.
    """

    n: int
    rank: int
    oversampling: int = OVERSAMPLING
    seed: int = 0
    blocks: int = BASIS_BLOCKS
    basis: Float = field(init=False)
    image: Float = field(init=False)

    def __post_init__(self) -> None:
        self.width = min(self.n, self.rank + self.oversampling)
        start = np.random.default_rng(self.seed).standard_normal((self.n, self.width))
        self.basis = np.empty((self.n, 0))
        self.image = np.empty((self.n, 0))
        self.next: Float = np.linalg.qr(start)[0]

    def extend(self, image: Float) -> None:
        """Take the product K `next` of one pass, and find the block of the next."""
        self.basis = np.column_stack([self.basis, self.next])
        self.image = np.column_stack([self.image, image])
        if self.basis.shape[1] + self.width > min(self.n, self.blocks * self.width):
            self._restart()
        new = self._residual_directions()
        for _ in range(2):  # twice is enough for orthogonality to rounding
            new -= self.basis @ (self.basis.T @ new)
            new = np.linalg.qr(new)[0]
        self.next = new

    def _residual_directions(self) -> Float:
        values, weights = self._ritz()
        count = min(self.width, self.n - self.basis.shape[1])
        chosen = weights[:, : max(count, 1)]
        return np.asarray(self.image @ chosen - (self.basis @ chosen) * values[: max(count, 1)])

    def _ritz(self) -> tuple[Float, Float]:
        projected = self.basis.T @ self.image
        values, weights = np.linalg.eigh((projected + projected.T) / 2.0)
        return values[::-1], weights[:, ::-1]

    def _restart(self) -> None:
        _, weights = self._ritz()
        kept = weights[:, : self.width]
        self.basis, self.image = self.basis @ kept, self.image @ kept

    def pairs(self) -> tuple[Float, Float, Float]:
        """Leading pairs so far.

        Returns
        -------
        s : ndarray (eigen)
            Descending, not negative.
        p : ndarray (eigen, sample)
        residual : ndarray (eigen)
            |K v - s v| of each pair; some eigenvalue of K lies within that distance of s.
        """
        values, weights = self._ritz()
        s, kept = values[: self.rank], weights[:, : self.rank]
        vectors, images = self.basis @ kept, self.image @ kept
        residual = np.linalg.norm(images - vectors * s, axis=0)
        return np.maximum(s, 0.0), np.ascontiguousarray(vectors.T), residual
