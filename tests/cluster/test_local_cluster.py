"""The local cluster heals, is closed to both sides, and leaves nothing on the machine.

The tests run in their order: the last one takes the cluster down and brings it up anew.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from localcluster import cleanup, components, layout, node, processes

TOOL = Path(__file__).resolve().parents[2] / "hack/cluster/main.py"
UP_SECONDS = 60  # what a warm start may take
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
except TimeoutError:
    sys.exit(3)
"""
DROPPED = 3
# A network that is kept for examples: https://www.rfc-editor.org/rfc/rfc5737
OUTSIDE, GATEWAY = "198.51.100.2/24", "198.51.100.1"


def cluster(command: str) -> None:
    subprocess.run([sys.executable, TOOL, command], check=True, timeout=UP_SECONDS)


def pids() -> dict[str, int]:
    """The process of each program; pods' shims are none of these."""
    found = processes.strays(components.PROGRAMS - {"containerd-shim-runc-v2"})
    return {Path(process.executable).name: process.pid for process in found}


def kill(victims: list[int]) -> None:
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


def test_up_again_restarts_nothing() -> None:
    cluster("up")
    before = pids()
    assert len(before) == sum(map(len, components.phases()))
    cluster("up")
    assert pids() == before


ALONE = ("etcd", "containerd", "kube-apiserver", "kubelet")


@pytest.mark.parametrize("victims", [*ALONE, "the others", "all"])
def test_up_heals_a_cluster_of_which_parts_were_killed(victims: str) -> None:
    before = pids()
    others = before.keys() - {*ALONE}
    names = {"all": before.keys(), "the others": others}.get(victims, {victims})
    kill([before[name] for name in names])
    cluster("up")
    after = pids()
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} >= names
    assert node.is_ready()
    assert node.gpus() == str(layout.GPUS)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=10)


@contextmanager
def host(name: str, address: str, gateway: str, bridge: str = "") -> Iterator[None]:
    """A network namespace that reaches this machine as a host of its own would.

    :param gateway: this machine's address there.
    :param bridge: where its link ends; without one this machine's end has the gateway's address.
    """
    near = f"{name}-a"
    ip("netns", "add", name)
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", name)
        if bridge:
            ip("link", "set", near, "master", bridge)
        else:
            ip("address", "add", f"{gateway}/24", "dev", near)
        ip("link", "set", near, "up")
        ip("-netns", name, "address", "add", address, "dev", "eth0")
        ip("-netns", name, "link", "set", "eth0", "up")
        ip("-netns", name, "route", "add", "default", "via", gateway)
        yield
    finally:
        ip("netns", "delete", name)


def reach(name: str, address: str, port: int) -> int:
    """Connect from a namespace; 0 when it went through, DROPPED when nothing answered."""
    command = ["ip", "netns", "exec", name, sys.executable, "-c", CONNECT, address, str(port)]
    return subprocess.run(command, timeout=20, capture_output=True).returncode


@contextmanager
def listening() -> Iterator[int]:
    """A port on all addresses of this machine."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


def _accept(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


def test_pods_reach_the_cluster_and_nothing_else() -> None:
    """Not even another address of this machine, here one that only this test has."""
    pod = host("ospt-pod", "10.97.255.250/16", layout.POD_GATEWAY, layout.POD_LINK)
    with pod, host("ospt-out", OUTSIDE, GATEWAY), listening() as port:
        assert reach("ospt-pod", layout.NODE_ADDRESS, port) == 0
        assert reach("ospt-pod", GATEWAY, port) == DROPPED
        assert reach("ospt-pod", OUTSIDE.partition("/")[0], port) == DROPPED


def test_other_hosts_do_not_reach_the_cluster() -> None:
    with host("ospt-out", OUTSIDE, GATEWAY), listening() as port:
        assert reach("ospt-out", GATEWAY, port) == 0
        assert reach("ospt-out", layout.NODE_ADDRESS, 6443) == DROPPED
        assert reach("ospt-out", layout.NODE_ADDRESS, port) == DROPPED


def left() -> list[str]:
    """Whatever of the cluster this machine still has."""
    rules = "".join(
        subprocess.run([f"{family}-save"], capture_output=True, text=True, timeout=30).stdout
        for family in ("iptables", "ip6tables")
    )
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, timeout=10)
    places = [Path("/proc/self/mountinfo").read_text(), rules, links.stdout]
    words = ("overspill-cluster", "OVERSPILL-", "KUBE-", "ospl-")
    lines = [line for text in places for line in text.splitlines() if any(w in line for w in words)]
    folders = [str(p) for p in (layout.STATE, layout.RUN) if p.exists()]
    return [*lines, *folders, *map(str, processes.strays(components.PROGRAMS))]


def test_down_leaves_nothing_and_up_makes_it_anew() -> None:
    assert left()
    cluster("down")
    assert left() == []
    assert cleanup.is_down()
    cluster("down")
    cluster("up")
    assert node.is_ready()
