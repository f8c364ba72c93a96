"""Settings of this package in Dask's configuration: dasklmm.yaml, DASK_DASKLMM__…, or dask.config.set.

They are read in the process that asks for work, never on a worker, whose configuration may be another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import yaml
from dask.utils import parse_bytes, parse_timedelta

from dasklmm.errors import OptionError

with (Path(__file__).parent / "dasklmm.yaml").open(encoding="utf-8") as _file:
    DEFAULTS: dict[str, Any] = yaml.safe_load(_file)

dask.config.update_defaults(DEFAULTS)


def _value(key: str) -> Any:
    # the default stands also where the whole of `dasklmm` was set to something without this key
    return dask.config.get(f"dasklmm.{key}", DEFAULTS["dasklmm"][key])


def check() -> None:
    """Raise OptionError where there is no such setting, or not such a value; before a cluster is asked for."""
    given, known = dask.config.get("dasklmm", {}), DEFAULTS["dasklmm"]
    names = given if isinstance(given, Mapping) else [given]
    unknown = [str(name) for name in names if str(name).replace("_", "-") not in known]
    if unknown:
        raise OptionError(
            f"there is no setting dasklmm.{unknown[0]}; there are {', '.join(known)}. It comes from a YAML file "
            f"of Dask's configuration, the environment variable {_variable(unknown[0])}, or dask.config.set."
        )
    for read in (block_size, usable_memory, live_page, worker_timeout, progress):
        read()


def _variable(key: str) -> str:
    return f"DASK_DASKLMM__{key.upper().replace('-', '_')}"


def _refused(key: str, value: Any, needed: str) -> OptionError:
    return OptionError(
        f"the setting dasklmm.{key} is {value!r}; {needed} is needed. It comes from a YAML file of Dask's "
        f"configuration, the environment variable {_variable(key)}, or dask.config.set."
    )


def block_size() -> int:
    """Bytes of genotypes, as float32, that a block aims at.

    Raises
    ------
    OptionError
        Not a size of 1 kB or more.
    """
    value = _value("block-size")
    try:
        size = int(parse_bytes(value))
    except (ValueError, TypeError, AttributeError, OverflowError):
        size = 0
    if size < 1000:
        raise _refused("block-size", value, "a size such as 64MiB, of 1 kB or more,")
    return size


def usable_memory() -> float:
    """Share of a worker's memory limit that the tasks may use.

    Raises
    ------
    OptionError
        Not a number above 0 and up to 1.
    """
    value = _value("usable-memory")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise _refused("usable-memory", value, "a number above 0 and up to 1")
    return float(value)


def worker_timeout() -> float:
    """Seconds that a cluster without any worker is waited for, at the start and in the middle of a run.

    Raises
    ------
    OptionError
        No time above 0.
    """
    value = _value("worker-timeout")
    try:
        seconds = float(parse_timedelta(value))
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError):
        seconds = 0.0
    if isinstance(value, bool) or not seconds > 0:
        raise _refused("worker-timeout", value, "a time such as 10 minutes, above 0,")
    return seconds


def live_page() -> bool:
    """Whether a scan on a cluster has a page on its dashboard; OptionError where that is no truth value."""
    return _truth("live-page")


def progress() -> bool:
    """Whether bars are drawn where nothing was said of them; OptionError where that is no truth value."""
    return _truth("progress")


def _truth(key: str) -> bool:
    value = _value(key)
    if not isinstance(value, bool):
        raise _refused(key, value, "true or false")
    return value
