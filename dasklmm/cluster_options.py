"""Where the work of a command is done: the options for a cluster, and the client that they ask for."""

from __future__ import annotations

import functools
import importlib.util
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any

import click

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


@dataclass(frozen=True)
class Cluster:
    """Where the work is done, as the options say."""

    workers: int | None = None
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
        of_gateway = (self.adapt, self.gateway_option or None, self.worker_timeout)
        if self.gateway is None and any(value is not None for value in of_gateway):
            raise click.UsageError("--adapt, --gateway-option and --worker-timeout are for --gateway.")
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
            help="How long to wait for the workers of a gateway.  [default: 600]",
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
    from dasklmm import settings

    settings.check()  # before there is a cluster
    with ExitStack() as stack:
        if cluster.gateway is not None:
            from dasklmm.gateway import gateway_client

            stack.enter_context(_signals_raised())
            client = stack.enter_context(
                gateway_client(
                    cluster.gateway,
                    n_workers=cluster.workers,
                    adapt=cluster.adapt,
                    options=cluster.options(),
                    timeout=cluster.worker_timeout or 600.0,
                    tell=lambda line: click.echo(line, err=True),
                )
            )
            _check_paths(client, read, write)
            _say_page(client)
        elif cluster.workers is not None:
            from dasklmm.cluster import local_cluster

            local = stack.enter_context(local_cluster(cluster.workers))
            client = stack.enter_context(local.get_client())
            stack.push(_no_news)
            # without bokeh nothing is served there
            dashboard = f", dashboard {local.dashboard_link}" if importlib.util.find_spec("bokeh") else ""
            click.echo(f"{cluster.workers} workers{dashboard}", err=True)
            _say_page(client)
        elif cluster.scheduler is not None:
            from distributed import Client

            try:
                client = stack.enter_context(Client(cluster.scheduler, timeout=10))
            except (OSError, ValueError) as error:
                raise click.ClickException(
                    f"no Dask scheduler answers at {cluster.scheduler!r} ({error}). Check the address, or give "
                    "--workers."
                ) from error
            from dasklmm.preflight import check_versions

            for line in check_versions(client):
                click.echo(line, err=True)
            _check_paths(client, read, write)
            _say_page(client)
        yield


def _check_paths(client: Any, read: str | None, write: str | None) -> None:
    from dasklmm.preflight import check_paths

    check_paths(client, [] if read is None else [read], [] if write is None else [write])


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the run, as an interruption does, so that a cluster that costs is stopped."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _no_news(kind: Any, error: Any, traceback: Any) -> None:
    """Let a cluster that ends in the middle of tasks do so in silence: the run's own error is what counts."""
    if kind is not None:
        for name in ("distributed", "tornado.application"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _say_page(client: Any) -> None:
    from dasklmm.live import page_url

    url = page_url(client)
    if url is not None:
        click.echo(f"the scan, live: {url}", err=True)
