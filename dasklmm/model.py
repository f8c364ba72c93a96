"""The linear mixed model: Hail's class and functions, over arrays of any size."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from dasklmm import schema
from dasklmm.errors import NotFittedError, OptionError, ShapeError, StoreError
from dasklmm.lazy import associate, blocks, eigen, project, random_effects
from dasklmm.model_inputs import Inputs, cross_ids, ids_of, kinship_of
from dasklmm.numerics import alternatives, design, html, prediction, reml, spectrum
from dasklmm.numerics.records import NullFit, RotatedData, Spectrum
from dasklmm.numerics.tails import neg_log10, p_value
from dasklmm.store import arrays
from dasklmm.store.arrays import StoredArray
from dasklmm.store.records import vacant

logger = logging.getLogger(__name__)


class LinearMixedModel:
    r"""Linear mixed model of one response, and the tests of alternatives in it.

    .. math:: y \sim \mathrm{N}(X \beta,\; \sigma^2 K + \tau^2 I), \qquad K = U S U^T, \qquad P = U^T

    The class, its methods and its attributes are those of Hail 0.2.93 (removed from Hail in 0.2.94); only
    :meth:`fit_alternatives` returns a lazy xarray.Dataset.

    Parameters
    ----------
    py : array (eigen)
        Response rotated by P.
    px : array (eigen, covariate)
        Design matrix rotated by P.
    s : array (eigen)
        Eigenvalues of the kinship K that belong to the rows of P, not negative.
    y, x : array (sample), (sample, covariate), optional
        Unrotated response and design: given for a low-rank model (fewer eigenpairs than samples), not for
        a full-rank one.
    p_path : str, optional
        Zarr array of P (eigen, sample).

    Attributes
    ----------
    low_rank : bool
    n, f, r : int
        Samples, fixed effects, eigenpairs.
    py, px, s, y, x, p_path
        As given, float64, read-only.
    intercept : bool
        Whether a constant lies in the span of x, as far as x is known. Variants are then centred.
    beta : ndarray (covariate)
        Fixed effects of the null; this and the following after :meth:`fit` only.
    sigma_sq, tau_sq : float
        Variance of the random effects and of the noise, in squared units of y.
    gamma, log_gamma : float
        sigma_sq / tau_sq and its natural logarithm.
    h_sq, h_sq_standard_error : float
        sigma_sq / (sigma_sq + tau_sq); the error is NaN where gamma was given.
    optimize_result : scipy.optimize.OptimizeResult or None

    Raises
    ------
    ShapeError, NotFiniteError, CovariateError, PhenotypeError, RankError
        Before any fit.

    Examples
    --------
    >>> import numpy as np
    >>> from dasklmm import LinearMixedModel
    >>> rng = np.random.default_rng(0)
    >>> z = rng.standard_normal((100, 300)) / np.sqrt(300)
    >>> y = z @ rng.standard_normal(300) + rng.standard_normal(100)
    >>> model, p = LinearMixedModel.from_kinship(y, np.ones((100, 1)), z @ z.T)
    >>> bool(0 < model.fit().h_sq < 1)
    True
    """

    def __init__(
        self,
        py: Any,
        px: Any,
        s: Any,
        y: Any = None,
        x: Any = None,
        p_path: str | Path | None = None,
    ) -> None:
        names = [str(c) for c in x.columns] if isinstance(x, pd.DataFrame) else None
        self._data = design.rotated_data(py, px, s, y, x, names)
        self._fit: NullFit | None = None
        self._search: tuple[Any, ...] = ()
        self._rotation: Any = None
        self._vectors: str | None = None
        self.intercept = bool(self._data.x is not None and design.has_intercept(self._data.x))
        self.p_path = None if p_path is None else str(p_path)
        self.sample_id: np.ndarray | None = None

    # data ---------------------------------------------------------------------------------------

    @property
    def data(self) -> RotatedData:
        """The rotated data, as the numerics take them."""
        return self._data

    @property
    def low_rank(self) -> bool:
        """Whether the model keeps fewer eigenpairs than samples."""
        return self._data.low_rank

    @property
    def n(self) -> int:
        """Number of samples."""
        return self._data.n

    @property
    def f(self) -> int:
        """Number of fixed effects."""
        return self._data.f

    @property
    def r(self) -> int:
        """Number of eigenpairs."""
        return self._data.r

    @property
    def py(self) -> np.ndarray:
        """Rotated response (eigen)."""
        return self._data.py

    @property
    def px(self) -> np.ndarray:
        """Rotated design matrix (eigen, covariate)."""
        return self._data.px

    @property
    def s(self) -> np.ndarray:
        """Eigenvalues of the kinship (eigen)."""
        return self._data.s

    @property
    def y(self) -> np.ndarray | None:
        """Response (sample) of a low-rank model, otherwise None."""
        return self._data.y

    @property
    def x(self) -> np.ndarray | None:
        """Design matrix (sample, covariate) of a low-rank model, otherwise None."""
        return self._data.x

    # the null -----------------------------------------------------------------------------------

    @property
    def null(self) -> NullFit:
        """The fitted null model; NotFittedError before :meth:`fit`."""
        if self._fit is None:
            raise NotFittedError("the null model is not fitted. Call fit() first.")
        return self._fit

    @property
    def beta(self) -> np.ndarray:
        """Fixed effects of the null (covariate)."""
        return self.null.beta

    @property
    def sigma_sq(self) -> float:
        """Variance of the random effects."""
        return self.null.sigma_sq

    @property
    def tau_sq(self) -> float:
        """Variance of the noise."""
        return self.null.tau_sq

    @property
    def gamma(self) -> float:
        """Variance ratio sigma_sq / tau_sq."""
        return self.null.gamma

    @property
    def log_gamma(self) -> float:
        """Natural logarithm of the variance ratio."""
        return self.null.log_gamma

    @property
    def h_sq(self) -> float:
        """Share sigma_sq / (sigma_sq + tau_sq)."""
        return self.null.h_sq

    @property
    def h_sq_standard_error(self) -> float:
        """Standard error of h_sq, NaN where gamma was given or lies at a bound."""
        return self.null.h_sq_standard_error

    @property
    def optimize_result(self) -> Any:
        """SciPy's result of the search for log gamma, None where it was given."""
        return self.null.optimize_result

    def fit(
        self,
        log_gamma: float | None = None,
        bounds: tuple[float, float] = (-8.0, 8.0),
        tol: float = 1e-8,
        maxiter: int = 500,
        *,
        on_boundary: Literal["raise", "clamp"] = "raise",
    ) -> LinearMixedModel:
        """Fit the null model by restricted maximum likelihood. Eager.

        Parameters
        ----------
        log_gamma : float, optional
            Fix the logarithm of the variance ratio; 0.0 means gamma = 1. Default: estimate it.
        bounds : (float, float)
            Range of log gamma that is searched.
        tol : float
            Absolute tolerance of log gamma.
        maxiter : int
            Limit of iterations.
        on_boundary : {"raise", "clamp"}
            An optimum within 0.001 of a bound is an error, or taken and flagged (`null.at_boundary`).

        Returns
        -------
        LinearMixedModel
            This model. Lazy results built before keep the fit that they were built with.

        Raises
        ------
        BoundaryError, OptimisationError, OptionError
        """
        self._fit = reml.fit_null(self._data, log_gamma, bounds, tol, maxiter, on_boundary=on_boundary)
        self._search = bounds, tol, maxiter
        return self

    def compute_neg_log_reml(
        self, log_gamma: float, return_parameters: bool = False
    ) -> float | tuple[float, np.ndarray, float, float]:
        """Negative log restricted likelihood at a variance ratio, less its constant. Eager.

        Parameters
        ----------
        log_gamma : float
        return_parameters : bool
            Return (value, beta, sigma_sq, tau_sq) instead of the value.
        """
        at = reml.evaluate(self._data, float(log_gamma))
        value = reml.neg_log_likelihood(self._data, at)
        if not return_parameters:
            return value
        sigma_sq = at.rss / (self.n - self.f)
        return value, at.beta, sigma_sq, sigma_sq / float(np.exp(log_gamma))

    def h_sq_normalized_lkhd(self) -> np.ndarray:
        """Restricted likelihood at h_sq = 0, 1, … 100 %, normalised to sum 1; NaN at both ends. Eager.

        Returns
        -------
        ndarray (101)
        """
        return reml.h_sq_profile(self._data)

    # alternatives -------------------------------------------------------------------------------

    def fit_alternatives(
        self,
        pa: Any,
        a: Any = None,
        partition_size: int | None = None,
        *,
        dims: tuple[str, str] | None = None,
        test: alternatives.Test = "lrt",
    ) -> xr.Dataset:
        """Test each alternative at the null's variance ratio. Lazy: nothing is computed here.

        Parameters
        ----------
        pa : path or URL, zarr.Array, Dask array, DataArray or ndarray
            Rotated alternatives (variant, eigen), dims in any order.
        a : same forms, optional
            The alternatives themselves (variant, sample); needed exactly by a low-rank model.
        partition_size : int, optional
            Variants of a task. Default: from the store's chunks and the memory budget.
        dims : (str, str), optional
            Dims of a `pa` that carries no names; told from the shape where it can be.
        test : {"lrt", "wald", "score"}
            Likelihood ratio (chi-squared, as Hail), Wald F, or score at the ML variance ratio.

        Returns
        -------
        Dataset (variant)
            beta, standard_error, sigma_sq, chi_sq, p_value, neg_log10_p_value, status. One pass over
            `pa`, O(eigen covariate) a variant. An alternative in the span of the covariates, or not
            finite, is a NaN row with its status. Unless partition_size is given or `pa` is a Dask array, the
            result of 16 tasks is one chunk.

        Raises
        ------
        NotFittedError, RankError, ShapeError, DimensionError
            Before anything is read.
        StoreError
            Nothing at a path; or `pa` says that it was rotated by other eigenvectors than the model's. On
            computing: it was written anew since.
        """
        return associate.test_alternatives(
            self.alternative_test(test),
            pa,
            a,
            dims=dims,
            partition_size=partition_size,
            check_vectors=self._check_vectors,
        )

    def _check_vectors(self, given: str) -> None:
        """Refuse alternatives that were rotated by eigenvectors of another digest than the model's, if known."""
        if self._vectors is None:
            with suppress(StoreError):  # a model of rotated data alone, or whose P is gone
                p = self.rotation
                self._vectors = (
                    arrays.eigenvectors_digest(p) if isinstance(p, np.ndarray) else arrays.eigenvectors_of(p)
                )
        if self._vectors not in (None, given):
            raise StoreError(
                "pa was rotated by other eigenvectors than the model's: by those of another kinship, of other "
                "samples, or of samples in another order. Rotate the alternatives by the model's own "
                "(linear_mixed_regression_rows, or project with model.rotation)."
            )

    def fit_alternatives_numpy(self, pa: Any, a: Any = None) -> pd.DataFrame:
        """Test alternatives held in memory, by likelihood ratio. Eager.

        Parameters
        ----------
        pa : ndarray (eigen, variant)
            Rotated alternatives as columns.
        a : ndarray (sample, variant), optional
            The alternatives; needed exactly by a low-rank model.

        Returns
        -------
        DataFrame
            idx, beta, sigma_sq, chi_sq, p_value, standard_error, neg_log10_p_value, status.

        Raises
        ------
        NotFittedError, RankError, ShapeError
        """
        null = self.alternative_test("lrt")
        columns = [None if v is None else np.asarray(v) for v in (pa, a)]
        for name, value, rows in zip(("pa", "a"), columns, (self.r, self.n), strict=True):
            if value is not None and (value.ndim != 2 or value.shape[0] != rows):
                dim = schema.EIGEN if name == "pa" else schema.SAMPLE
                raise ShapeError(
                    f"{name} has shape {value.shape}; here alternatives are columns, as in Hail: shape "
                    f"({rows}, m), ({dim}, {schema.VARIANT}), is needed."
                )
        stats = alternatives.test_block(null, *(None if v is None else v.T for v in columns))
        return pd.DataFrame(
            {
                "idx": np.arange(stats.beta.size),
                "beta": stats.beta,
                "sigma_sq": stats.sigma_sq,
                "chi_sq": stats.chi_sq,
                "p_value": p_value(stats.log_p),
                "standard_error": stats.standard_error,
                "neg_log10_p_value": neg_log10(stats.log_p),
                "status": associate.labels(stats.status),
            }
        )

    def alternative_test(self, test: alternatives.Test = "lrt") -> alternatives.AlternativeTest:
        """Weights and constants of the null by which :meth:`fit_alternatives` tests, for calls of the kernels.

        Parameters
        ----------
        test : {"lrt", "wald", "score"}
            The score test is at the ML variance ratio, which is searched for here; the others at that of the fit.

        Returns
        -------
        AlternativeTest
            float64; O((eigen + sample) covariate^2).

        Raises
        ------
        NotFittedError, OptionError
        """
        log_gamma = self.null.log_gamma
        if test == "score" and self.null.estimated:
            plain = reml.fit_null(self._data, None, *self._search, criterion="ml", on_boundary="clamp")
            if plain.at_boundary:
                logger.warning("the ML variance ratio lies at a bound: log_gamma %.3g", plain.log_gamma)
            log_gamma = plain.log_gamma
        return alternatives.alternative_test(self._data, log_gamma, test)

    @property
    def rotation(self) -> Any:
        """The eigenvectors P (eigen, sample) this model was made with: an array, or a stored one."""
        if self._rotation is not None:
            return self._rotation
        if self.p_path is not None:
            return arrays.open_array(self.p_path, "p")
        raise StoreError(
            "the model does not know its eigenvectors: it was made from rotated data without p_path. Make "
            "it with from_kinship, from_random_effects or linear_mixed_model, or give p_path (or p= to predict)."
        )

    # random effects -----------------------------------------------------------------------------

    def predict_random_effects(self, kinship: xr.DataArray | None = None, *, p: Any = None) -> xr.DataArray:
        r"""Best linear unbiased predictions (BLUP) of the random effects at the null fit. Eager.

        .. math:: \hat g = \sigma^2 K V^{-1} (y - X \hat\beta), \qquad V = \sigma^2 K + \tau^2 I

        Parameters
        ----------
        kinship : DataArray (sample_0, sample_1), optional
            Predict for the samples of sample_id_0, from their kinship with the model's samples, which are
            found by id in sample_id_1; more columns than those are no harm. Default: predict for the
            model's own samples.
        p : array (eigen, sample), DataArray, Dataset of `eigendecompose`, zarr.Array or path, optional
            The eigenvectors as rows, for a model that does not keep them (see `rotation`).

        Returns
        -------
        DataArray (sample)
            In units of y, with sample_id where it is known. Of the model's own samples also the coordinate
            prediction_error_variance, the variance of (prediction - effect) with the variance components
            taken as known, in squared units of y. Cost 2 sample eigen (covariate + 3) flop.

        Raises
        ------
        NotFittedError
        StoreError
            The model does not know its eigenvectors.
        SampleError
            No ids to join by, or samples of the model that the kinship lacks.
        KinshipError
            Not finite, or not centred where the model's kinship is.
        ShapeError, DimensionError

        Notes
        -----
        The model decomposes the kinship that it is given, without centring. So `kinship` must be of the same
        matrix: compute the kinship of all samples at once, make the model from the block of its samples
        and predict from the block of the new ones with them. Of random effects z it is z_new z^T, the new rows
        centred and scaled by the same numbers as the model's. With an intercept in x, a constant added to a
        row of `kinship` changes nothing, and centring the model's kinship and `kinship` alike moves all
        predictions by one constant. A sample's value is predicted by its covariates times `beta`, plus this.
        """
        weights = prediction.prediction_weights(self._data, self.null)
        own, ids, p_ones = self._predict_own(weights, p, sums=kinship is not None)
        if kinship is None:
            out = xr.DataArray(own[:, 0], dims=schema.SAMPLE, name="random_effect")
            out = out.assign_coords(prediction_error_variance=(schema.SAMPLE, own[:, 1]))
            return out if ids is None else out.assign_coords(sample_id=(schema.SAMPLE, ids))
        new_ids, samples = cross_ids(kinship, ids)
        rows = kinship.transpose("sample_0", "sample_1").data
        values = _map_rows(prediction.predict_others, rows, sample_weights=own[:, 2], samples=samples)
        prediction.check_rows(values[:, 1], values[:, 2], self.s, p_ones, self.n)
        coords = {"sample_id": (schema.SAMPLE, new_ids)}
        return xr.DataArray(values[:, 0], dims=schema.SAMPLE, coords=coords, name="random_effect")

    def _predict_own(
        self, weights: prediction.PredictionWeights, p: Any, *, sums: bool
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Columns of `predict_block` in the model's order, the samples' ids, and P 1 if wanted."""
        rotation = self.rotation if p is None else p
        ids = schema.sample_ids(rotation) if isinstance(rotation, (xr.DataArray, xr.Dataset)) else None
        rotation = project.operand(rotation)
        if isinstance(rotation, StoredArray):
            ids, rotation = rotation.sample_id, rotation.load()
        if tuple(np.shape(rotation)) != (self.r, self.n):
            raise ShapeError(
                f"p has shape {tuple(np.shape(rotation))}; ({self.r}, {self.n}), (eigen, sample), is needed: the "
                "eigenvectors that the model was made with, as rows."
            )
        own = _map_rows(prediction.predict_block, rotation.T, weights=weights)
        p_ones = np.asarray(rotation.sum(axis=1)) if sums else np.empty(0)
        known = None if self.sample_id is None else np.asarray(self.sample_id, dtype=str)
        if known is not None and ids is not None and not np.array_equal(ids, known):
            own = own[schema.positions(known, ids, "p")]
        return own, ids if known is None else known, p_ones

    # constructors -------------------------------------------------------------------------------

    @classmethod
    def from_kinship(
        cls, y: Any, x: Any, k: Any, p_path: str | Path | None = None, overwrite: bool = False
    ) -> tuple[LinearMixedModel, np.ndarray]:
        """Full-rank model from a kinship matrix. Eager.

        Parameters
        ----------
        y : array, Series or DataArray (sample)
        x : array, DataFrame or DataArray (sample, covariate)
            Design matrix; an intercept is a column of ones that you give.
        k : array or DataArray (sample, sample)
            Symmetric positive semidefinite. Where y and k carry sample ids, k is taken in y's samples and
            order.
        p_path : str, optional
            Write P there as a Zarr array (eigen, sample).
        overwrite : bool
            Replace what is at `p_path`.

        Returns
        -------
        model : LinearMixedModel
        p : ndarray (eigen, sample)
            Eigenvectors of k as rows, eigenvalues descending.

        Raises
        ------
        KinshipError, ShapeError, NotFiniteError, CovariateError, PhenotypeError, SampleError, StoreError

        Notes
        -----
        Cost: an eigendecomposition, about 0.11 ns n^3 with two threads.
        """
        inputs = Inputs.of(y, x)
        inputs.check()
        k, ids = kinship_of(k, inputs)
        if tuple(np.shape(k)) != (inputs.y.size, inputs.y.size):
            spectrum.check_kinship(np.empty((0, 0)) if np.ndim(k) == 0 else np.asarray(k))
            raise ShapeError(
                f"y has {inputs.y.size} samples and the kinship has shape {tuple(np.shape(k))}; shape "
                f"({inputs.y.size}, {inputs.y.size}) is needed."
            )
        _check_target(p_path, overwrite)
        pairs = eigen.eigendecompose(k)
        pairs = Spectrum(pairs["p"].values, pairs["s"].values)
        return cls._from_pairs(inputs, pairs, False, p_path, overwrite, ids), pairs.p

    @classmethod
    def from_random_effects(
        cls,
        y: Any,
        x: Any,
        z: Any,
        p_path: str | Path | None = None,
        overwrite: bool = False,
        max_condition_number: float = 1e-10,
        complexity_bound: int = 8192,
    ) -> tuple[LinearMixedModel, Any]:
        """Model of K = Z Z^T: full rank if n <= m, low rank if n > m. Eager.

        Parameters
        ----------
        y : array, Series or DataArray (sample)
        x : array, DataFrame or DataArray (sample, covariate)
        z : array, DataArray or Dask array (sample, effect)
            Random effects, any features; no standardisation is applied.
        p_path : str, optional
            Write P there as a Zarr array (eigen, sample).
        overwrite : bool
            Replace what is at `p_path`.
        max_condition_number : float
            With n > m, eigenpairs with s at most this times the largest are dropped, and counted in the
            log.
        complexity_bound : int
            For a Dask array: the largest cube root of n m min(n, m) for which z is brought into memory and
            decomposed; beyond it the smaller Gram matrix is summed block by block, and decomposed.

        Returns
        -------
        model : LinearMixedModel
        p : ndarray or Dask array (eigen, sample)
            A Dask array exactly where z is one, has n > m and goes by its Gram matrix.

        Raises
        ------
        ShapeError, NotFiniteError, CovariateError, PhenotypeError, OptionError, StoreError

        Notes
        -----
        Cost O(n m min(n, m)) for z (n, m), in memory or by its Gram matrix.
        """
        inputs = Inputs.of(y, x)
        inputs.check()
        spectrum.check_condition(max_condition_number)
        z_ids = ids_of(z)
        if isinstance(z, xr.DataArray):
            z = z.transpose(schema.SAMPLE, ...).data
        if not isinstance(z, da.Array):
            z = np.asarray(z, dtype=np.float64)
        joined = inputs.ids is not None and z_ids is not None
        if z.ndim != 2 or (z.shape[0] != inputs.y.size and not joined):
            raise ShapeError(
                f"z has shape {z.shape} and y {inputs.y.size} samples; z (sample, effect) needs "
                f"{inputs.y.size} rows."
            )
        if inputs.ids is not None and z_ids is not None and not np.array_equal(inputs.ids, z_ids):
            z = z[schema.positions(inputs.ids, z_ids, "z")]
        _check_target(p_path, overwrite)
        pairs = random_effects.decompose(z, max_condition_number, complexity_bound)
        if pairs.n_dropped:
            logger.warning(
                "from_random_effects: %d ill-conditioned eigenpairs dropped, the largest eigenvalue %.3g; "
                "rank %d of %d effects",
                pairs.n_dropped, pairs.largest_dropped, pairs.s.size, z.shape[1],
            )  # fmt: skip
        low_rank = z.shape[0] > z.shape[1]
        ids = inputs.ids if inputs.ids is not None else z_ids
        model = cls._from_pairs(inputs, pairs, low_rank, p_path, overwrite, ids)
        p = pairs.p
        if isinstance(p, da.Array) and p_path is not None:
            p = da.from_array(model.rotation, name=False)
        return model, p

    @classmethod
    def _from_pairs(
        cls,
        inputs: Inputs,
        pairs: Spectrum,
        low_rank: bool,
        p_path: str | Path | None,
        overwrite: bool,
        ids: np.ndarray | None,
    ) -> LinearMixedModel:
        rotation: Any = pairs.p
        if p_path is not None:
            named = xr.DataArray(pairs.p, dims=(schema.EIGEN, schema.SAMPLE))
            if ids is not None:
                named = named.assign_coords(sample_id=(schema.SAMPLE, ids))
            rotation = project.write_rows(named, p_path, overwrite=overwrite)
        both = np.column_stack([inputs.y, inputs.x])
        (rotated,) = dask.compute(pairs.p @ both)
        unrotated = (inputs.y, inputs.x) if low_rank else (None, None)
        model = cls(rotated[:, 0], rotated[:, 1:], pairs.s, *unrotated, p_path=p_path)
        model._rotation = rotation
        model.intercept = inputs.intercept
        model.sample_id = ids
        return model

    def __repr__(self) -> str:
        rank = f"low rank {self.r}" if self.low_rank else "full rank"
        head = (
            f"LinearMixedModel: {self.n} samples, {self.f} fixed effect{'' if self.f == 1 else 's'}, {rank}"
        )
        if self._fit is None:
            return f"{head}, not fitted"
        error = self.h_sq_standard_error
        width = "" if np.isnan(error) else f" ± {error:.4g}"
        return f"{head}, h_sq {self.h_sq:.4g}{width}, log_gamma {self.log_gamma:.4g}"

    def _repr_html_(self) -> str:
        shape = {
            "samples": f"{self.n:,}",
            "fixed effects": f"{self.f:,}",
            "eigenpairs": f"{self.r:,} ({'low' if self.low_rank else 'full'} rank)",
        }
        if self._fit is None:
            return html.table("LinearMixedModel", shape, "Not fitted: call fit().")
        return html.table("LinearMixedModel", {**shape, **self._fit.figures()})


def _map_rows(function: Any, rows: Any, **operands: Any) -> np.ndarray:
    """Call on an array, or on each block of rows of a Dask array. Eager."""
    if not isinstance(rows, da.Array):
        return function(np.asarray(rows), **operands)
    lazily = blocks.map_variants(function, rows.rechunk({1: -1}), label="predict", width=3, **operands)
    return np.asarray(lazily.compute())


def _check_target(path: str | Path | None, overwrite: bool) -> None:
    if path is not None:
        vacant(path, overwrite, "array")


def linear_mixed_model(
    y: Any,
    x: Any,
    z: Any = None,
    k: Any = None,
    p_path: str | Path | None = None,
    overwrite: bool = False,
    standardize: bool = True,
    mean_impute: bool = True,
) -> tuple[LinearMixedModel, Any]:
    """Model from genotypes (or other features) z, or from a kinship k. Eager.

    Parameters
    ----------
    y : array, Series or DataArray (sample)
    x : array, DataFrame or DataArray (sample, covariate)
        An intercept is a column of ones that you give.
    z : Dataset of `open_genotypes`, DataArray (variant, sample) in any order, or array (sample, effect)
        Give exactly one of z and k. Joined to y by sample id where both have ids.
    k : array or DataArray (sample, sample)
    p_path, overwrite
        Where to write P as a Zarr array.
    standardize : bool
        Centre each variant, scale it to variance 1 and divide by the square root of their number, so that
        K is the realized relationship matrix. Variants that do not vary are dropped, and counted in the
        log (Hail counted and then failed on them).
    mean_impute : bool
        Impute missing dosages by the variant's mean; otherwise a missing one is an error.

    Returns
    -------
    model : LinearMixedModel
        Not fitted yet; full rank if there are at least as many variants as samples.
    p : ndarray or Dask array (eigen, sample)

    Raises
    ------
    OptionError
        Both or neither of z and k.
    NotFiniteError
        Missing dosages with ``mean_impute=False``.

    Examples
    --------
    >>> import numpy as np
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, h_sq=0.5, seed=1)
    >>> y, x = cohort["phenotype"], np.ones((100, 1))
    >>> model, p = dasklmm.linear_mixed_model(y, x, cohort)
    >>> model.low_rank, p.shape, bool(0 < model.fit().h_sq < 1)
    (False, (100, 100), True)
    """
    if (z is None) == (k is None):
        raise OptionError(
            f"{'neither z nor k' if z is None else 'both z and k'} were given; give exactly one: genotypes "
            "or features z, or a kinship k."
        )
    if z is None:
        return LinearMixedModel.from_kinship(y, x, k, p_path, overwrite)
    if isinstance(z, pd.DataFrame):
        z_ids = ids_of(z)
        coords = {} if z_ids is None else {"sample_id": (schema.SAMPLE, z_ids)}
        z = xr.DataArray(z.to_numpy(), dims=(schema.SAMPLE, schema.VARIANT), coords=coords)
    inputs = Inputs.of(y, x)
    inputs.check()
    effects = random_effects.from_genotypes(
        z, inputs.ids, inputs.y.size, standardize=standardize, mean_impute=mean_impute
    )
    return LinearMixedModel.from_random_effects(y, x, effects, p_path, overwrite)
