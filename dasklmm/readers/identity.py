"""The one rule by which family and individual ids become a sample id."""

from __future__ import annotations

import numpy as np
import pandas as pd


def family_ids(fid: pd.Series, iid: pd.Series) -> np.ndarray:
    """FID:IID of every row."""
    return np.array((fid.astype(str) + ":" + iid.astype(str)).tolist(), dtype=str)


def sample_identity(fid: pd.Series | None, iid: pd.Series) -> np.ndarray:
    """Sample ids as text: the IID, or FID:IID for all where IIDs repeat."""
    if fid is not None and needs_family(iid):
        return family_ids(fid, iid)
    return np.array(iid.astype(str).tolist(), dtype=str)


def needs_family(iid: pd.Series) -> bool:
    """Whether IIDs repeat, so that they alone are no identity."""
    return bool(iid.astype(str).duplicated().any())
