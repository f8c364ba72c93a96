"""What ends a command from outside."""

from __future__ import annotations

import logging
import signal

import pytest

from dasklmm.interruptions import Terminated, clusters_heard, signals_raised


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_clusters_are_hushed_before_anything_unwinds(number, error):
    log = logging.getLogger("tornado.application")
    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        with clusters_heard():
            log.setLevel(
                logging.WARNING
            )  # distributed, or a command that was interrupted here, may have hushed it
            with clusters_heard(), signals_raised():
                with pytest.raises(error):
                    signal.raise_signal(number)
                # distributed would log a traceback of a wait that was interrupted as it began
                assert not log.isEnabledFor(logging.ERROR)
            assert log.isEnabledFor(logging.ERROR)
        assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    finally:
        signal.signal(number, before)
