"""A gateway to try on one machine; with another backend, the options that dasklmm uses.

    dask-gateway-server -f dask_gateway_config.py

The backend runs every cluster as this user, which is for trying alone. On Kubernetes, YARN or a batch system take
its backend in place of the two lines that say so, and keep the rest.
"""

from dask_gateway_server.options import Float, Integer, Mapping, Options

c = get_config()  # noqa: F821  (of the server, which runs this file)

# these two are of this machine; PATH is where dask and dasklmm are
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.UnsafeLocalBackend.inherited_environment = ["PATH"]

c.Proxy.address = "127.0.0.1:8000"  # what --gateway is given
c.SimpleAuthenticator.password = "change me"

# distributed has no dask-scheduler and dask-worker any more
c.ClusterConfig.scheduler_cmd = ["dask", "scheduler"]
c.ClusterConfig.worker_cmd = ["dask", "worker"]
c.ClusterConfig.idle_timeout = 3600  # seconds: ends the cluster of a process that was killed outright


def configuration(options):
    return {
        "worker_memory": f"{options.worker_memory} G",
        "worker_cores": options.worker_cores,
        "environment": options.environment,
    }


# Without these a gateway takes no --gateway-option, and workers get no settings.
c.Backend.cluster_options = Options(
    Float("worker_memory", default=2, min=0.5, label="GB of a worker"),
    Integer("worker_cores", default=1, min=1),
    Mapping("environment", default={}),
    handler=configuration,
)
