"""A dask-gateway server with its local backend on loopback, and what processes it has started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MARK = "DASKLMM_TEST_GATEWAY"
PASSWORD = "open sesame"

# The options of the clusters, some of which make them fail on purpose.
CONFIGURATION = """
import sys
from dask_gateway_server.options import Bool, Integer, Mapping, Options, Select

COMMANDS = {{
    "dask": ["dask", "worker"],
    "never": [sys.executable, "-c", "import time; time.sleep(600)"],
    "fails": [sys.executable, "-c", "raise SystemExit(1)"],
}}

def configuration(options):
    return {{
        "worker_cores": options.worker_cores,
        "environment": options.environment,
        "worker_cmd": COMMANDS[options.worker],
        "scheduler_cmd": ["dask", "scheduler"] if options.scheduler else ["no-such-command"],
    }}

c.DaskGateway.address = "127.0.0.1:{api}"
c.Proxy.address = "127.0.0.1:{public}"
c.Proxy.proxy_status_period = 1
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.UnsafeLocalBackend.clusters_directory = {clusters!r}
c.UnsafeLocalBackend.inherited_environment = ["PATH", "{mark}"]
c.UnsafeLocalBackend.worker_status_period = 0.5
c.SimpleAuthenticator.password = {password!r}
c.ClusterConfig.cluster_max_workers = 3
c.ClusterConfig.worker_memory = "1 G"
c.ClusterConfig.adaptive_period = 0.5
c.Backend.cluster_options = Options(
    Integer("worker_cores", default=1, min=1, max=2),
    Mapping("environment", default={{}}),
    Select("worker", options=list(COMMANDS), default="dask"),
    Bool("scheduler", default=True),
    handler=configuration,
)
"""


@dataclass
class Server:
    """A running gateway."""

    address: str
    mark: str
    process: subprocess.Popen[bytes]
    log: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Of a client process: who it is, by Dask's own configuration."""
        return {
            **os.environ,
            "DASK_GATEWAY__AUTH__TYPE": "basic",
            "DASK_GATEWAY__AUTH__KWARGS": repr({"username": "ada", "password": PASSWORD}),
            "DASK_GATEWAY__HTTP_CLIENT__PROXY": "False",
            **more,
        }

    def configuration(self) -> dict[str, Any]:
        """The same for this process."""
        return {
            "gateway.auth.type": "basic",
            "gateway.auth.kwargs": {"username": "ada", "password": PASSWORD},
            "gateway.http-client.proxy": False,
        }

    def clusters(self) -> list[str]:
        """Clusters that are not over."""
        import requests

        found = requests.get(
            f"{self.address}/api/v1/clusters/?status=pending,running,stopping",
            auth=("ada", PASSWORD),
            timeout=10,
            proxies={"http": ""},
        )
        found.raise_for_status()
        return list(found.json())

    def alive(self) -> list[psutil.Process]:
        """Schedulers, nannies and workers that are alive, whoever their parent is by now."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                ours = environment.get(MARK) == self.mark and "DASK_GATEWAY_CLUSTER_NAME" in environment
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def processes(self) -> list[str]:
        """Command lines of those."""
        found = []
        for process in self.alive():
            with suppress(psutil.Error):
                found.append(" ".join(process.cmdline()))
        return found

    def nothing_left(self, seconds: float = 30.0) -> None:
        """Assert that no cluster and no process of one is left, soon."""
        end = time.monotonic() + seconds
        while clusters := self.clusters():
            assert time.monotonic() < end, clusters
            time.sleep(0.1)
        while processes := self.processes():
            assert time.monotonic() < end, processes
            time.sleep(0.1)


def _ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


@contextmanager
def gateway_server(folder: Path, configuration: str = CONFIGURATION) -> Iterator[Server]:
    """Start `dask-gateway-server` and its proxy; end both."""
    api, public = _ports(2)
    (folder / "clusters").mkdir()
    path, log, mark = folder / "gateway.py", folder / "gateway.log", uuid.uuid4().hex
    path.write_text(
        configuration.format(
            api=api, public=public, clusters=str(folder / "clusters"), mark=MARK, password=PASSWORD
        )
    )
    scripts = Path(sys.executable).parent
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(scripts / "dask-gateway-server"), "-f", str(path)],
            env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", MARK: mark},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    server = Server(f"http://127.0.0.1:{public}", mark, process, log)
    try:
        end = time.monotonic() + 30
        while not _answers(public):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.terminate()
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
            for child in children:
                if child.is_running():
                    child.kill()


def _answers(port: int) -> bool:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/api/version")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
