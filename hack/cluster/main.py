"""The local cluster's command: up, down, status, env, load, relay.

python3 hack/cluster/main.py up
"""

import argparse
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from localcluster import (
    build,
    cgroups,
    cleanup,
    components,
    host,
    images,
    layout,
    network,
    node,
    outside,
    pki,
    processes,
    templates,
)
from localcluster.progress import ClusterError, run, say

LOCK_PATIENCE = 1800  # seconds: another `up` may be building


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Let one command at a time change the cluster."""
    layout.LOCK.parent.mkdir(parents=True, exist_ok=True)
    with layout.LOCK.open("w") as lock:
        deadline = time.monotonic() + LOCK_PATIENCE
        while not try_lock(lock.fileno()):
            if time.monotonic() > deadline:
                raise ClusterError("another command has been working on the cluster for too long")
            time.sleep(0.5)
        yield


def try_lock(descriptor: int) -> bool:
    """Take the lock if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def announce() -> None:
    """Say what `up` is about to install and change."""
    packages, modules = host.missing_packages(), build.missing()
    say("The local cluster on this machine:")
    if packages:
        say(f"  installs Debian packages: {' '.join(packages)}")
    if modules:
        say(f"  builds into {layout.CACHE}: {', '.join(f'{m.name} ({m.usual})' for m in modules)}")
    say(
        f"  keeps its state in {layout.STATE} and {layout.RUN}, and writes {layout.USER_KUBECONFIG}"
    )
    say(f"  adds the bridges {', '.join(network.LINKS)}, firewall rules and kernel settings")
    say("  `down` removes all of it but the packages and the built programs")


def confirm(assume_yes: bool) -> None:
    """Ask, on a terminal only; ClusterError when the answer is no."""
    if assume_yes or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    if input("Go on? [Y/n] ").strip().lower() not in ("", "y", "yes"):
        raise ClusterError("nothing was changed")


def up(assume_yes: bool) -> None:
    """Bring the cluster up, or repair it: whatever runs well is left alone."""
    host.check()
    if host.missing_packages() or build.missing() or not layout.STATE.exists():
        announce()
        confirm(assume_yes)
    host.install_packages()
    if host.foreign_cluster():
        raise ClusterError(
            "another Kubernetes node runs on this machine (it has KUBE-SERVICES firewall rules): "
            "use that cluster instead"
        )
    programs = build.ensure()
    prepare(programs)
    start_programs()
    node.ensure()
    say(f"ready: one node with {layout.GPUS} GPUs")
    env()


def start_programs() -> None:
    """Start what does not run yet: storage and runtime, then the API, then what lives on it."""
    foundation, api, rest = components.phases()
    processes.ensure_all(foundation)
    images.ensure_pause()
    processes.ensure_all(api)
    node.apply_objects()
    processes.ensure_all(rest)


def prepare(programs: Path) -> None:
    """Make folders, certificates, configuration, network and cgroups."""
    network.check()
    for folder in (layout.STATE, layout.RUN):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for folder in (layout.LOGS, layout.KUBECONFIGS, layout.RENDERED, layout.STATE / "audit"):
        folder.mkdir(mode=0o700, exist_ok=True)
    link_programs(programs)
    host.save_settings()
    pki.ensure()
    pki.write_kubeconfigs()
    templates.write_all()
    network.ensure()
    cgroups.ensure()


def link_programs(programs: Path) -> None:
    """Point the state folder's bin at this checkout's versions."""
    scratch = layout.STATE / "bin.new"
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(programs)
    os.replace(scratch, layout.BIN)


def down(purge: bool) -> None:
    """Take the cluster down."""
    host.check()
    if cleanup.is_down() and not purge:
        say("the cluster is down")
        return
    cleanup.down(purge)
    say("the cluster is down; nothing of it is left")


def env() -> None:
    """Print the shell lines that select this cluster and its programs."""
    print(f"export KUBECONFIG={layout.USER_KUBECONFIG}")
    print(f"export PATH={layout.BIN}:$PATH")
    if "https_proxy" in (name.lower() for name in os.environ):
        print(f"export NO_PROXY={os.environ['NO_PROXY']} no_proxy={os.environ['NO_PROXY']}")


def status() -> bool:
    """Print each program's state; True when all of them run and answer."""
    good = True
    for program in (program for phase in components.phases() for program in phase):
        found = processes.recorded(program)
        state = "stopped" if not found else "ready" if program.ready() else "not ready"
        good = good and state == "ready"
        print(f"{program.name:<25}{found[0].pid if found else '-':>8}  {state}")
    if good:
        print(run(components.kubectl("get", "nodes", "-o", "wide")).rstrip())
        print(f"GPUs: {node.gpus() or '0'}")
    return good


def load(archives: list[Path]) -> None:
    """Import image archives."""
    for archive in archives:
        images.load(archive)
        say(f"loaded {archive}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help="build, start or repair the cluster")
    starting.add_argument("--yes", action="store_true", help="do not ask")
    stopping = commands.add_parser("down", help="remove the cluster")
    stopping.add_argument("--purge", action="store_true", help="remove the built programs too")
    building = commands.add_parser("build", help="only build the programs, and print their folder")
    extra = [module.name for module in build.ON_DEMAND]
    building.add_argument("module", nargs="?", choices=extra, help="this one, not the cluster's")
    commands.add_parser("status", help="show what runs")
    commands.add_parser("env", help="print the lines to select the cluster in a shell")
    loading = commands.add_parser("load", help="import image archives")
    loading.add_argument("archives", nargs="+", type=Path, metavar="IMAGE.tar")
    relaying = commands.add_parser("relay", help="let pods reach one host outside, by a proxy")
    relaying.add_argument("target", metavar="HOST:PORT")
    return root


def execute(options: argparse.Namespace) -> int:
    """Run one command and return the exit status."""
    match options.command:
        case "up":
            with exclusive():
                up(options.yes)
        case "down":
            with exclusive():
                down(options.purge)
        case "build":
            with exclusive():
                print(build.ensure_one(options.module) if options.module else build.ensure())
        case "status":
            return 0 if status() else 1
        case "env":
            env()
        case "load":
            load(options.archives)
        case "relay":
            with exclusive():
                outside.ensure(outside.relay(options.target))
            print(f"http://{layout.NODE_ADDRESS}:{outside.PORT}")
    return 0


def bypass_proxies() -> None:
    """Talk to the cluster directly where the environment names an HTTP proxy."""
    others = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "localhost,127.0.0.1"
    if layout.NODE_ADDRESS not in others.split(","):
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = f"{others},{layout.NODE_ADDRESS}"


def main() -> int:
    """Parse, run, and turn a ClusterError into a message."""
    bypass_proxies()
    try:
        return execute(parser().parse_args())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
