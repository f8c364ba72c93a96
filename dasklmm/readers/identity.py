"""The one rule by which family and individual ids become a sample id."""

from __future__ import annotations

import numpy as np
import pandas as pd


def sample_identity(fid: pd.Series | None, iid: pd.Series) -> np.ndarray:
    """Sample ids as text: the IID, or FID:IID for all where IIDs repeat."""
    ids = iid.astype(str)
    if fid is not None and ids.duplicated().any():
        ids = fid.astype(str) + ":" + ids
    return np.array(ids.tolist(), dtype=str)
