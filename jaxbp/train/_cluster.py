"""One of several processes that train together."""

import contextlib
import os
import socket
import time

import jax

from jaxbp._arguments import whole
from jaxbp._errors import argument_error, first_line

# Seconds after which a silent process counts as lost. One that died is noticed at once,
# by its connections; one on a busy machine may be late.
_HEARTBEAT = 30


def join_cluster(
    address: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    patience: float = 60,
) -> None:
    """Join the processes that train together, before anything is computed.

    `jax.distributed.initialize`, after what would end the process there without a word
    to the user has been asked: whether process 0 can have its port, and whether the
    others reach it. `jax.devices()` are those of all processes from then on.

    Args:
        address: `host:port` of process 0; as `scripts/cluster` says where it is None,
            and where that started nothing, the process stays alone.
        processes: how many there are.
        process: the number of this one, from 0.
        patience: seconds in which process 0 must have begun to listen, and the others
            to come.
    Raises:
        ValueError: an address that is none, a number that is not below `processes`.
        OSError: the port is in use; nobody listens at the address.
    """
    if address is None:
        address = os.environ.get("JAX_COORDINATOR_ADDRESS")
        processes = _number("JAXBP_PROCESSES") if processes is None else processes
        process = _number("JAXBP_PROCESS") if process is None else process
        if address is None and processes is process is None:
            return
    processes = whole("join_cluster", "processes", processes, 1)
    process = whole("join_cluster", "process", process, 0)
    if process >= processes:
        expected = f"below processes, {processes}"
        raise argument_error("join_cluster", "process", expected, process)
    host, colon, port = str(address).rpartition(":")
    if not (colon and host and port.isdigit()):
        expected = "host:port of process 0"
        raise argument_error("join_cluster", "address", expected, repr(address))
    if process == 0:
        _check_free(host, int(port))
    else:
        _wait_for(host, int(port), patience)
    jax.distributed.initialize(
        address,
        processes,
        process,
        initialization_timeout=max(1, int(patience)),
        heartbeat_timeout_seconds=_HEARTBEAT,
    )


def _number(name: str) -> int | None:
    value = os.environ.get(name)
    return None if value is None else int(value)


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            expected, got = "free in process 0", first_line(error)
            mend = "take another, or end what listens there"
            raise argument_error(
                "join_cluster", f"port {port}", expected, got, mend, kind=OSError
            ) from error


def _wait_for(host: str, port: int, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            with contextlib.closing(socket.create_connection((host, port), 5)):
                return
        except OSError as error:
            if time.monotonic() > until:
                expected = "where process 0 listens"
                got = f"{host}:{port} and, for {patience:g} s, {first_line(error)}"
                mend = "start process 0 too, or mend the address"
                raise argument_error(
                    "join_cluster", "address", expected, got, mend, kind=OSError
                ) from error
        time.sleep(0.1)
