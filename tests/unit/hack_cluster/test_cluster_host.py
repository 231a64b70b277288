"""What the local cluster takes for its own on the machine: processes, mounts, firewall rules."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from localcluster import cgroups, cleanup, layout, network, processes
from localcluster.processes import Program
from localcluster.progress import ClusterError

WAITING = "import signal; signal.sigwait([signal.SIGTERM])"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RUN", "LOGS", "STATE"):
        monkeypatch.setattr(layout, name, tmp_path)
    return tmp_path


@pytest.fixture
def program(folders: Path) -> Iterator[Program]:
    argv = (sys.executable, "-c", WAITING, str(folders))
    part = Program("part", argv, ready=lambda: True)
    yield part
    for process in processes.strays(frozenset({Path(part.executable).name})):
        processes.stop(process)


def running(program: Program) -> processes.Process:
    found = processes.recorded(program)
    assert found is not None
    return found[0]


def test_a_healthy_program_is_left_alone(program: Program) -> None:
    assert processes.ensure(program)
    first = running(program)
    assert not processes.ensure(program)
    assert running(program) == first


def test_a_program_with_other_inputs_is_restarted(program: Program, folders: Path) -> None:
    config = folders / "config"
    config.write_text("a")
    configured = dataclasses.replace(program, inputs=(config,))
    processes.ensure(configured)
    first = running(configured)
    config.write_text("b")
    assert processes.ensure(configured)
    assert processes.inspect(first.pid) is None


def test_a_killed_program_is_started_again(program: Program) -> None:
    processes.ensure(program)
    first = running(program)
    processes.stop(first)
    assert processes.recorded(program) is None
    assert processes.ensure(program)


def test_a_running_program_without_a_pid_file_is_replaced(program: Program) -> None:
    processes.ensure(program)
    first = running(program)
    program.pid_file.unlink()
    assert processes.ensure(program)
    assert processes.inspect(first.pid) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("started", 1), ("executable", "/bin/other"), ("argv", ["other"]), ("pid", 2**22 + 1)],
)
def test_a_pid_file_of_another_process_is_not_believed(
    program: Program, field: str, value: object
) -> None:
    processes.ensure(program)
    real = running(program)
    record = json.loads(program.pid_file.read_text())
    program.pid_file.write_text(json.dumps(record | {field: value}))
    assert processes.recorded(program) is None
    assert processes.inspect(real.pid) == real


@pytest.mark.parametrize("content", ["", "17", "{}", '{"pid": "x"}', "[]"])
def test_a_damaged_pid_file_is_not_believed(program: Program, content: str) -> None:
    program.pid_file.write_text(content)
    assert processes.recorded(program) is None


def test_stop_spares_a_process_that_took_over_the_pid() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        stranger = processes.inspect(child.pid)
        assert stranger is not None
        processes.stop(dataclasses.replace(stranger, started=stranger.started - 1))
        assert child.poll() is None
        child.kill()


def test_a_program_that_ignores_sigterm_is_killed(folders: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True);"
    with subprocess.Popen(
        [sys.executable, "-c", stubborn + "signal.pause()"], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = processes.inspect(child.pid)
        assert process is not None
        processes.stop(process, grace=0.1)
        assert child.wait(timeout=5) == -9


def test_a_program_that_ends_at_once_says_its_last_words(folders: Path) -> None:
    program = Program("part", ("/bin/sh", "-c", "echo broken config; exit 1"), ready=lambda: False)
    with pytest.raises(ClusterError, match="broken config"):  # noqa: PT012
        processes.start(program, "x")
        processes.await_ready(program)


def test_only_named_programs_on_our_folders_are_ours(folders: Path) -> None:
    names = frozenset({"etcd"})
    ours = processes.Process(1, 1, "/cache/etcd", ("etcd", f"--data-dir={folders}/etcd"))
    assert processes.is_ours(ours, names)
    assert not processes.is_ours(dataclasses.replace(ours, argv=("etcd", "-d=/data")), names)
    assert not processes.is_ours(dataclasses.replace(ours, executable="/usr/bin/vim"), names)


@pytest.mark.parametrize(
    ("route", "clash"),
    [
        ({"dst": "default", "dev": "eth0"}, False),
        ({"dst": "10.97.0.0/16", "dev": layout.POD_LINK}, False),
        ({"dst": "10.98.0.0/16", "dev": "tun0"}, False),
        ({"dst": "10.0.0.0/8", "dev": "tun0"}, True),
        ({"dst": "10.96.4.1", "dev": "tun0"}, True),
    ],
)
def test_routes_that_collide_are_found(route: dict[str, str], clash: bool) -> None:
    assert bool(network.overlaps([route])) is clash


def test_a_chain_is_set_without_touching_others() -> None:
    text = network.restore_input("raw", "OURS", ["-i x -j DROP"])
    assert text == "*raw\n:OURS - [0:0]\n-A OURS -i x -j DROP\nCOMMIT\n"


SAVED = """
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SEP-ABC - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SEP-ABC
-A DOCKER -i docker0 -j RETURN
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
COMMIT
"""


def test_only_the_rules_of_kube_proxy_are_removed() -> None:
    assert network.proxy_removal(SAVED).splitlines() == [
        "*nat",
        ":KUBE-SERVICES - [0:0]",
        ":KUBE-SEP-ABC - [0:0]",
        '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        "-X KUBE-SERVICES",
        "-X KUBE-SEP-ABC",
        "COMMIT",
    ]


V1 = "30 25 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu"
V2 = "29 25 0:25 / /sys/fs/cgroup/unified rw,nosuid shared:8 - cgroup2 cgroup2 rw"
DISK = "25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([DISK, V1], ["/sys/fs/cgroup/cpu"]),
        ([DISK, V2, V1], ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu"]),
        ([DISK], []),
    ],
)
def test_cgroup_hierarchies_are_found(lines: list[str], expected: list[str]) -> None:
    assert cgroups.hierarchies("\n".join(lines)) == [Path(path) for path in expected]


def test_only_mounts_below_our_folders_are_unmounted_newest_first() -> None:
    template = "25 1 254:0 / {} rw - tmpfs tmpfs rw"
    own = [f"{layout.STATE}/kubelet/a", f"{layout.STATE}/kubelet/a/b"]
    foreign = ["/", f"{layout.STATE}-other/x", "/var/lib/kubelet/pods/x"]
    mountinfo = "\n".join(template.format(point) for point in [*own, *foreign])
    assert cleanup.mounts(mountinfo) == own[::-1]
