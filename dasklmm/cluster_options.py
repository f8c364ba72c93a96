"""Where the work of a command is done: the options for a cluster, and the client that they ask for."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any

import click

from dasklmm.interruptions import clusters_heard, hush_clusters

# Dask and the clusters are imported when one is asked for: --help answers at once.


class _Bounds(click.ParamType):
    name = "MIN:MAX"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        try:
            least, most = (int(part) for part in value.split(":"))
        except ValueError:
            self.fail(f"{value!r} is not MIN:MAX, such as 2:20.", param, ctx)
        if not 1 <= least <= most:
            self.fail(f"{value!r}: MIN is 1 or more, and MAX is not below it.", param, ctx)
        return least, most


_TLS = "DASK_DISTRIBUTED__COMM__TLS__"


@dataclass(frozen=True)
class Cluster:
    """Where the work is done, as the options say."""

    workers: int | None = None
    worker_memory: str | None = None
    scheduler: str | None = None
    gateway: str | None = None
    adapt: tuple[int, int] | None = None
    gateway_option: tuple[str, ...] = ()
    worker_timeout: float | None = None

    def check(self) -> None:
        """Refuse options that contradict each other."""
        if self.scheduler is not None and (self.workers is not None or self.gateway is not None):
            other = "--workers" if self.workers is not None else "--gateway"
            raise click.UsageError(f"give {other} or --scheduler, not both.")
        if self.worker_memory is not None and (self.workers is None or self.gateway is not None):
            raise click.UsageError(
                "--worker-memory is for the processes of --workers on this machine; a gateway has an option of "
                "its own (--gateway-option)."
            )
        if self.gateway is None and (self.adapt is not None or self.gateway_option):
            raise click.UsageError("--adapt and --gateway-option are for --gateway.")
        if self.worker_timeout is not None and self.gateway is None and self.scheduler is None:
            raise click.UsageError("--worker-timeout is for --gateway and --scheduler.")
        if self.gateway is not None and (self.workers is None) == (self.adapt is None):
            raise click.UsageError("give --workers N or --adapt MIN:MAX with --gateway, one of the two.")
        self.options()

    def options(self) -> dict[str, str]:
        """Of the gateway, by name."""
        pairs = [text.partition("=") for text in self.gateway_option]
        for name, sign, _ in pairs:
            if not name or not sign:
                raise click.UsageError(f"--gateway-option is KEY=VALUE, not {name + sign!r}.")
        return {name: value for name, _, value in pairs}

    def shown(self, arguments: list[str]) -> list[str]:
        """Arguments as a report may hold them: values of the gateway's options may be credentials."""
        for text in self.gateway_option:
            name = text.partition("=")[0]
            arguments = [f"{a.removesuffix(text)}{name}=…" if a.endswith(text) else a for a in arguments]
        return arguments


def cluster_options(function: Any) -> Any:
    """Give a command the options of a :class:`Cluster`, which it takes as `cluster`."""

    @functools.wraps(function)
    def gathered(**given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) for field in fields(Cluster)}
        return function(cluster=Cluster(**chosen), **given)

    for option in (
        click.option(
            "--worker-timeout",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="How long to wait where --gateway or --scheduler has no worker.  [default: 600]",
        ),
        click.option(
            "--gateway-option",
            multiple=True,
            metavar="KEY=VALUE",
            help="An option of the gateway's clusters, such as worker_memory=8; repeatable.",
        ),
        click.option("--adapt", type=_Bounds(), help="Workers of --gateway that follow the load."),
        click.option(
            "--gateway",
            metavar="URL",
            help="Make a cluster at this dask-gateway server, with --workers or --adapt, and stop it at the end.",
        ),
        click.option(
            "--worker-memory",
            metavar="SIZE",
            help="Memory of each process of --workers, such as 4GB.  [default: an equal share of the machine's]",
        ),
        click.option("--scheduler", metavar="ADDR", help="Address of a running Dask scheduler."),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Start a local cluster of this many worker processes.  [default: threads of this process]",
        ),
    ):
        gathered = option(gathered)
    return gathered


@contextmanager
def client_of(cluster: Cluster, read: str | None = None, write: str | None = None) -> Iterator[None]:
    """The Dask client asked for, or none: threads. Workers elsewhere must see what is read and written."""
    cluster.check()
    import dask

    from dasklmm import settings

    with ExitStack() as stack:
        if cluster.worker_timeout is not None:
            stack.enter_context(dask.config.set({"dasklmm.worker-timeout": cluster.worker_timeout}))
        settings.check()  # before there is a cluster
        stack.enter_context(clusters_heard())
        for log in map(logging.getLogger, ("distributed.client", "tornado.application", "asyncio")):
            log.addFilter(_is_not_loss)
            stack.callback(log.removeFilter, _is_not_loss)
        if cluster.gateway is not None:
            from dasklmm.gateway import gateway_client

            client = stack.enter_context(
                gateway_client(
                    cluster.gateway,
                    n_workers=cluster.workers,
                    adapt=cluster.adapt,
                    options=cluster.options(),
                    timeout=settings.worker_timeout(),
                    tell=lambda line: click.echo(line, err=True),
                )
            )
            _check_paths(client, read, write)
            _say_page(client)
        elif cluster.workers is not None:
            from dasklmm.cluster import local_cluster

            local = stack.enter_context(local_cluster(cluster.workers, cluster.worker_memory))
            client = stack.enter_context(local.get_client())
            stack.push(_no_news)
            # without bokeh nothing is served there
            dashboard = f", dashboard {local.dashboard_link}" if importlib.util.find_spec("bokeh") else ""
            click.echo(f"{cluster.workers} workers{dashboard}", err=True)
            _say_page(client)
        elif cluster.scheduler is not None:
            from dasklmm.lazy.run import need_workers

            client = stack.enter_context(_connected(cluster.scheduler))
            need_workers(client, tell=lambda line: click.echo(line, err=True))
            from dasklmm.preflight import check_versions

            for line in check_versions(client):
                click.echo(line, err=True)
            _check_paths(client, read, write)
            _say_page(client)
        yield


def _connected(address: str) -> Any:
    """A client of a running scheduler; certificates for tls:// are those of Dask's configuration."""
    from distributed import Client

    try:
        return Client(address, timeout=10)
    except TypeError as error:
        if not address.startswith("tls://"):
            raise
        raise click.ClickException(
            f"{address!r} needs three files of certificates, which Dask's configuration does not name: the "
            "settings distributed.comm.tls.ca-file, .client.cert and .client.key in YAML, or in the environment "
            f"{_TLS}CA_FILE, {_TLS}CLIENT__CERT and {_TLS}CLIENT__KEY."
        ) from error
    except (OSError, ValueError) as error:
        advice = (
            "the address and the certificates (distributed.comm.tls in Dask's configuration)"
            if address.startswith("tls://")
            else "the address, which begins with tls:// where the scheduler is encrypted"
        )
        raise click.ClickException(
            f"no Dask scheduler answers at {address!r} ({error}). Check {advice}, or give --workers."
        ) from error


def _check_paths(client: Any, read: str | None, write: str | None) -> None:
    from dasklmm.preflight import check_paths

    check_paths(client, [] if read is None else [read], [] if write is None else [write])


def _is_not_loss(record: logging.LogRecord) -> bool:
    """Whether a log tells of something else than a lost scheduler, which is the run's own error, in a line."""
    from distributed.comm import CommClosedError

    error = record.exc_info[1] if record.exc_info else None
    lost = isinstance(error, (asyncio.CancelledError, CommClosedError))
    return not lost and "Failed to reconnect" not in record.getMessage()


def _no_news(kind: Any, error: Any, traceback: Any) -> None:
    if kind is not None:
        hush_clusters()


def _say_page(client: Any) -> None:
    from dasklmm.live import page_url

    url = page_url(client)
    if url is not None:
        click.echo(f"the scan, live: {url}", err=True)
