"""N processes of a command on this machine, which end together.

Each line they print has the number of its process before it. Ctrl-C reaches all of
them; when one fails the others are ended, and its exit code is this one's.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

GRACE = 2.0  # seconds for the others to say what they lost
USAGE = "usage: cluster N COMMAND..., N a number of processes from 1 on"


def start(command: Sequence[str], number: int, count: int, port: int):
    told = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAXBP_PROCESSES": str(count),
        "JAXBP_PROCESS": str(number),
        "PYTHONUNBUFFERED": "1",  # what an aborted process had printed is seen
    }
    # Accelerators are no process's own: all would ask for all of them.
    environment = {"JAX_PLATFORMS": "cpu"} | os.environ | told
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C reaches it through us alone
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def forward(source, target, number: int) -> threading.Thread:
    def lines():
        for line in source:
            target.write(f"[{number}] ".encode() + line.rstrip(b"\n") + b"\n")
            target.flush()

    thread = threading.Thread(target=lines, daemon=True)
    thread.start()
    return thread


def signalled(children, number: int) -> None:
    """To every process of those that still run, and to what they started."""
    for child in children:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)


def first_failed(children) -> int | None:
    """The number of the process that failed first; None when all ended well."""
    while True:
        codes = [child.poll() for child in children]
        for number, code in enumerate(codes):
            if code:
                return number
        if None not in codes:
            return None
        time.sleep(0.02)


def ended(code: int) -> str:
    """How a process did."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def main(arguments: Sequence[str]) -> int:
    count, *command = arguments or [""]
    if not (count.isdigit() and int(count) and command):
        print(USAGE, file=sys.stderr)
        return 2
    port, children = free_port(), []
    # JAX catches SIGTERM: what must end is killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, lambda *_: signalled(children, signal.SIGINT))
    try:
        for number in range(int(count)):
            children.append(start(command, number, int(count), port))
        outputs = [
            forward(source, target.buffer, number)
            for number, child in enumerate(children)
            for source, target in (
                (child.stdout, sys.stdout),
                (child.stderr, sys.stderr),
            )
        ]
        number = first_failed(children)
        until = time.monotonic() + GRACE
        while number is not None and time.monotonic() < until:
            if all(child.poll() is not None for child in children):
                break
            time.sleep(0.02)
    except OSError as error:
        print(
            f"cluster: {command[0]} does not start: {error.strerror}", file=sys.stderr
        )
        return 127
    finally:
        signalled(children, signal.SIGKILL)
        for child in children:
            child.wait()
    for output in outputs:
        output.join(GRACE)
    if number is None:
        return 0
    code = children[number].wait()
    said = f"cluster: process {number} {ended(code)}: the others were ended too"
    print(said, file=sys.stderr)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
