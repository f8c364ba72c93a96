"""A transient read error is tried again; a lasting one is raised as it is."""

from __future__ import annotations

import numpy as np
import pytest

from dasklmm.errors import GenotypeReadError
from dasklmm.readers import dataset


class Flaky:
    shape, dtype, ndim = (4, 3), np.dtype(np.int8), 2

    def __init__(self, failures, error=OSError):
        self.failures, self.error, self.reads = failures, error, 0

    def __getitem__(self, index):
        self.reads += 1
        if self.reads <= self.failures:
            raise self.error("the network blinked")
        return np.ones(self.shape, self.dtype)[index]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(dataset, "PAUSE_SECONDS", 0.0)


def test_two_failures_are_survived_and_said(caplog):
    source = Flaky(2)
    assert dataset.Retried(source)[0:2, :].shape == (2, 3)
    assert source.reads == 3
    assert caplog.text.count("the network blinked") == 2


def test_a_third_is_raised():
    source = Flaky(3)
    with pytest.raises(GenotypeReadError, match=r"rows 0 to 2, 3 attempts.: the network blinked. Check"):
        dataset.Retried(source)[0:2, :]
    assert source.reads == 3


def test_other_errors_are_not_tried_again():
    source = Flaky(1, ValueError)
    with pytest.raises(ValueError, match="blinked"):
        dataset.Retried(source)[0:2, :]
    assert source.reads == 1
