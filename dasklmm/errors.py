"""One exception class for each thing a user can get wrong.

Every class derives from :class:`DaskLMMError` and from the built-in class a caller would catch without
knowing this package (ValueError for what was given, RuntimeError for what happened). A message says what
was given, what is needed, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class DaskLMMError(Exception):
    """Base of every error raised on purpose by dasklmm."""


class ShapeError(DaskLMMError, ValueError):
    """Arrays whose shapes disagree."""


class DimensionError(DaskLMMError, ValueError):
    """Named dimensions that are unknown, missing, or cannot be told from the shape."""


class NotFiniteError(DaskLMMError, ValueError):
    """NaN or infinity where every value must be finite."""


class CovariateError(DaskLMMError, ValueError):
    """Covariates that are collinear, constant beside an intercept, or too many for the samples."""


class PhenotypeError(DaskLMMError, ValueError):
    """A phenotype that is constant, missing or ambiguous."""


class SampleError(DaskLMMError, ValueError):
    """Sample identifiers that are duplicated or do not meet."""


class KinshipError(DaskLMMError, ValueError):
    """A kinship matrix that is not square, symmetric, finite and positive semidefinite."""


class RankError(DaskLMMError, ValueError):
    """Low-rank data without alternatives, full-rank data with them, or an impossible rank."""


class OptionError(DaskLMMError, ValueError):
    """An option outside the values it can take."""


class NotFittedError(DaskLMMError, RuntimeError):
    """A result of the null fit was asked for before `fit`."""


class BoundaryError(DaskLMMError, RuntimeError):
    """The variance ratio's optimum lies at a bound of the search."""


class OptimisationError(DaskLMMError, RuntimeError):
    """The optimiser of the variance ratio did not converge."""


class LocoError(DaskLMMError, ValueError):
    """Leave-one-contig-out asked for where it cannot be done."""


class GenotypeFormatError(DaskLMMError, ValueError):
    """A genotype source that is not of a known format, or is inconsistent."""


class GenotypeReadError(DaskLMMError, RuntimeError):
    """Genotypes that were there when they were opened and cannot be read now."""


class TableError(DaskLMMError, ValueError):
    """A phenotype or covariate table that cannot be understood."""


class StoreError(DaskLMMError, RuntimeError):
    """A store that exists, is incomplete, or holds other data than asked for."""


class MissingExtraError(DaskLMMError, RuntimeError):
    """An optional dependency is needed; the message gives the pip command."""


class MemoryBudgetError(DaskLMMError, RuntimeError):
    """A step that would not fit in memory; refused before it runs."""


class ClusterError(DaskLMMError, RuntimeError):
    """The cluster that computes was lost, or its workers die again and again."""


def some(names: Sequence[object]) -> str:
    """The first few of many, for a message."""
    return ", ".join(map(repr, map(str, names[:6]))) + (", …" if len(names) > 6 else "")
