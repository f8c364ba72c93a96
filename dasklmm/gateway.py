"""A cluster that a dask-gateway server makes for one run, and that ends with it."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dasklmm import preflight
from dasklmm.cluster import WORKER_CONFIGURATION, WORKER_ENVIRONMENT
from dasklmm.errors import ClusterError, MissingExtraError, OptionError
from dasklmm.lazy import run

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5

# dask-gateway 2026.3 closes a Gateway again when it is collected, which raises once its loop has ended.
_KEPT: list[Any] = []

# Workers of a gateway are started elsewhere: Dask's settings reach them through the environment alone.
ENVIRONMENT = {
    **WORKER_ENVIRONMENT,
    **{
        f"DASK_{name.upper().replace('.', '__')}": str(value)
        for name, value in WORKER_CONFIGURATION.items()
        if name.startswith("distributed.worker.memory.")
    },
}


@contextmanager
def gateway_client(
    address: str,
    *,
    n_workers: int | None = None,
    adapt: tuple[int, int] | None = None,
    options: Mapping[str, Any] | None = None,
    timeout: float = 600.0,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Client]:
    """Make a cluster at a dask-gateway server, use it as the active client, and stop it. Eager.

    The cluster is stopped however the body ends; only a process that is killed outright leaves it to the
    gateway's own idle timeout. Who you are, the proxy's address and default options come from Dask's
    configuration (``gateway.auth``, ``gateway.proxy-address``, ``gateway.cluster.options``).

    Parameters
    ----------
    address : str
        Of the server, such as "https://gateway.example.org".
    n_workers : int, optional
        Workers to ask for. Work begins when all are there, or after `timeout` with those that are.
    adapt : tuple of int, optional
        Least (1 or more) and most workers, between which the cluster follows its load; instead of `n_workers`.
    options : mapping, optional
        Cluster options that the server offers. Text for an option of another type is read as YAML. An option
        `environment` also gets the settings of the workers of `local_cluster`, where it has none of its own.
    timeout : float
        Seconds to wait for the scheduler, and again for the workers.
    tell : callable (str), optional
        Takes a line on what is waited for. Default: this module's logger.

    Yields
    ------
    distributed.Client
        The active client; `client.cluster` is the GatewayCluster.

    Raises
    ------
    MissingExtraError
        dask-gateway is not installed.
    OptionError
        Numbers of workers or options that the server does not take.
    ClusterError
        No gateway answers, it refuses the user, the cluster or all its workers do not come in time, or
        versions of Python, dask, distributed or dasklmm differ between here and there.

    Examples
    --------
    >>> import dasklmm
    >>> with dasklmm.gateway_client("https://gateway.example.org", n_workers=8):  # doctest: +SKIP
    ...     dasklmm.gwas("s3://bucket/cohort.zarr", "traits.tsv", store="s3://bucket/results.zarr")
    """
    if (n_workers is None) == (adapt is None):
        raise OptionError("give n_workers (--workers) or adapt (--adapt), one of the two.")
    if n_workers is not None and n_workers < 1:
        raise OptionError(f"n_workers is {n_workers}; it needs to be 1 or more.")
    if adapt is not None and not 1 <= adapt[0] <= adapt[1]:
        raise OptionError(f"adapt is {adapt}; the least is 1 or more, and the most is not below it.")
    if "@" in urlsplit(address).netloc:
        raise OptionError(
            "the gateway's address holds a name or password, which would be shown. Give them in Dask's "
            "configuration (gateway.auth), and the address without them."
        )
    tell = tell or logger.info
    package = _package()
    wanted = n_workers if adapt is None else adapt[0]
    with ExitStack() as stack:
        with _told(address):
            gateway = stack.enter_context(package.Gateway(address))
            _KEPT.append(gateway)
            chosen = _chosen(gateway, options or {})
            name = _submitted(gateway, chosen, tell)
        stack.callback(_stop, gateway, name)
        with _told(address):
            tell(f"the gateway makes the cluster {name}")
            _started(gateway, name, timeout)
            cluster = stack.enter_context(gateway.connect(name))
            _KEPT.append(cluster.gateway)
            _scale(cluster, n_workers, adapt)
        client = stack.enter_context(_client(cluster))
        if cluster.dashboard_link:
            tell(f"dashboard {cluster.dashboard_link}")
        with _told(address):
            count = _workers(gateway, name, client, int(wanted or 1), timeout, tell)
        for line in preflight.check_versions(client):
            tell(f"{line}: results may differ in the last digits")
        absent = _settings_absent(client)
        if absent:
            tell(
                f"workers run without {', '.join(absent)}, which costs time: the gateway offers no option "
                "'environment', so set them in its configuration (docs/cloud_batch.md)"
            )
        tell(f"{count} worker{'s' * (count != 1)}")
        yield client


def _package() -> Any:
    try:
        import dask_gateway
    except ImportError as error:
        raise MissingExtraError(
            "clusters of a gateway need dask-gateway, which is not installed: pip install 'dasklmm[gateway]'"
        ) from error
    return dask_gateway


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Say what a gateway's answer, or its silence, means."""
    import aiohttp
    from dask_gateway import GatewayClusterError, GatewayServerError

    try:
        yield
    except (ClusterError, OptionError):
        raise
    except aiohttp.ClientResponseError as error:
        if error.status in (401, 403):
            raise ClusterError(
                f"the gateway at {address!r} refuses this user ({error.status}). Say who you are in Dask's "
                "configuration: gateway.auth.type and gateway.auth.kwargs, as the gateway's people tell you."
            ) from error
        raise _no_gateway(address, error) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise ClusterError(
            f"{address!r} is no address of a gateway: it has the form http://host:port or https://host."
        ) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ClusterError(
            f"no gateway answers at {address!r} ({error or type(error).__name__}). Check the address, and that "
            "this machine reaches it; an HTTP proxy in the environment is used unless gateway.http-client.proxy "
            "is false in Dask's configuration."
        ) from error
    except GatewayServerError as error:
        raise ClusterError(
            f"the gateway at {address!r} failed ({error}). Its own log says why; ask its people."
        ) from error
    except GatewayClusterError as error:
        raise ClusterError(f"the gateway at {address!r} lost the cluster ({error}).") from error
    except (json.JSONDecodeError, KeyError, ValueError) as error:
        raise _no_gateway(address, error) from error


def _no_gateway(address: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"what answers at {address!r} does not take this request ({error}). Is it the public address of a "
        "dask-gateway server?"
    )


def _chosen(gateway: Any, options: Mapping[str, Any]) -> Any:
    """Options of the server with those that are given."""
    import yaml

    try:
        offered = gateway.cluster_options()
    except KeyError as error:
        raise OptionError(
            f"Dask's configuration (gateway.cluster.options) names an option that the gateway has not: {error}."
        ) from error
    for name, value in options.items():
        if name not in offered:
            # a mapping, as environment is, may hold credentials: never shown
            known = ", ".join(
                k if isinstance(offered[k], Mapping) else f"{k}={offered[k]!r}" for k in offered
            )
            raise OptionError(
                f"the gateway has no option {name!r}. It offers, with defaults: {known or 'none'}."
            )
        try:
            if isinstance(value, str) and not isinstance(offered[name], str):
                value = yaml.safe_load(value)
            if name == "environment" and isinstance(value, dict):
                value = {str(k): str(v) for k, v in value.items()}
            offered[name] = value
        except (TypeError, ValueError, yaml.YAMLError) as error:
            if name == "environment":
                raise OptionError(
                    "the gateway's option 'environment' is a YAML mapping, such as "
                    "environment='{NAME: value}'; what is given is not (nor shown: it may hold credentials)."
                ) from None
            raise OptionError(f"the gateway's option {name!r} is not {value!r}: {error}.") from error
    if "environment" in offered and isinstance(offered["environment"], dict):
        offered["environment"] = {**ENVIRONMENT, **offered["environment"]}
    return offered


def _submitted(gateway: Any, options: Any, tell: Callable[[str], None]) -> str:
    """Name of a new cluster. An interruption waits for the name, or nobody could stop what it names."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(gateway.submit, options)
        try:
            return str(future.result())
        except ValueError as error:
            raise OptionError(f"the gateway refuses these options: {error}.") from error
        except (KeyboardInterrupt, SystemExit):
            tell("interrupted while the gateway makes a cluster: waiting for its name, to stop it")
            _stop(gateway, str(future.result(timeout=60)))
            raise


def _stop(gateway: Any, name: str) -> None:
    try:
        gateway.stop_cluster(name)
    except BaseException as error:
        logger.error(
            "the cluster %s could not be stopped (%s: %s) and may go on, and cost. Stop it with: "
            "python -c \"from dask_gateway import Gateway; Gateway('%s').stop_cluster('%s')\"",
            name, type(error).__name__, error, gateway.address, name,
        )  # fmt: skip
        if not isinstance(error, Exception):
            raise


def _status(gateway: Any, name: str) -> str:
    return str(gateway.get_cluster(name).status.name)


def _started(gateway: Any, name: str, timeout: float) -> None:
    end = time.monotonic() + timeout
    while (status := _status(gateway, name)) != "RUNNING":
        if status in ("FAILED", "STOPPED", "STOPPING"):
            raise ClusterError(
                f"the cluster {name} did not start ({status.lower()}); the gateway's log says why. Where it is "
                "the command: distributed has no dask-scheduler and dask-worker any more, so the server's "
                'configuration needs c.ClusterConfig.scheduler_cmd = ["dask", "scheduler"] and worker_cmd = '
                '["dask", "worker"].'
            )
        if time.monotonic() > end:
            raise ClusterError(
                f"the cluster {name} has no scheduler after {timeout:g} s. Where nodes are slow to come, give "
                "it longer (--worker-timeout, timeout=); else the gateway's log says what it waits for."
            )
        time.sleep(PAUSE_SECONDS)


def _scale(cluster: Any, n_workers: int | None, adapt: tuple[int, int] | None) -> None:
    from dask_gateway.client import GatewayWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", GatewayWarning)
        try:
            if adapt is not None:
                cluster.adapt(minimum=adapt[0], maximum=adapt[1])
            else:
                cluster.scale(n_workers)
        except GatewayWarning as error:
            raise OptionError(f"the gateway allows fewer workers: {error}") from error


def _client(cluster: Any) -> Any:
    from distributed.versions import VersionMismatchWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # preflight says it, and what to do
        try:
            return cluster.get_client()
        except (OSError, TimeoutError) as error:
            raise ClusterError(
                f"the gateway answers, but not the cluster's scheduler through its proxy at "
                f"{cluster.scheduler_address!r} ({error}). Where the proxy has an address of its own, give it in "
                "Dask's configuration: gateway.proxy-address."
            ) from error


def _workers(
    gateway: Any, name: str, client: Any, wanted: int, timeout: float, tell: Callable[[str], None]
) -> int:
    """Wait for workers; how many there are."""

    def check() -> None:
        status = _status(gateway, name)
        if status != "RUNNING":
            raise ClusterError(
                f"the cluster {name} ended ({status.lower()}) while its workers started. A worker's command "
                "fails at once, or the gateway gave up on it: its log says why."
            )

    count = run.workers_there(client, wanted, timeout, tell, check)
    if count >= wanted:
        return count
    if count:
        tell(
            f"{count} of {wanted} workers came in {timeout:g} s: going on with them, others join as they come"
        )
        return count
    raise ClusterError(
        f"no worker came in {timeout:g} s. A quota, a size of worker that no node has, or an image that cannot "
        "be pulled are the usual causes: see the gateway's log. Where nodes are slow to come, give them longer "
        "(--worker-timeout, timeout=)."
    )


def _settings_absent(client: Any) -> list[str]:
    """Settings that a worker does not have, as NAME=value."""
    seen = client.run(_settings).values()
    return [f"{k}={v}" for k, v in ENVIRONMENT.items() if any(of[k] != v for of in seen)]


def _settings() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in ENVIRONMENT}
