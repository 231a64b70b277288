"""The one way out that pods get, and only when it is asked for: a relay to one host and port."""

import socket
import sys

from localcluster import layout, processes
from localcluster.processes import Program
from localcluster.progress import ClusterError

PORT = 3128
PROGRAM = layout.TOOL / "relay.py"


def relay(target: str, address: str = layout.NODE_ADDRESS, port: int = PORT) -> Program:
    """The relay on the node's address, which this machine and its pods alone reach."""

    def ready() -> bool:
        try:
            socket.create_connection((address, port), timeout=2).close()
        except OSError:
            return False
        return True

    argv = (sys.executable, "-I", str(PROGRAM), f"{address}:{port}", target)
    return Program("relay", argv, ready, (PROGRAM,))


def ensure(program: Program) -> None:
    """Start the relay, instead of one to another host."""
    if not layout.RUN.exists():
        raise ClusterError("the cluster is down: run `up` first")
    found = processes.recorded(program)
    if found and found[1] == program.fingerprint() and program.ready():
        return
    close()
    processes.start(program, program.fingerprint())
    processes.await_ready(program)


def close() -> None:
    """Stop the relay, if one runs."""
    found = processes.recorded(relay(""))
    if found:
        processes.stop(found[0])
