"""The world of the faults, and the table of figures at the end of `make chaos`."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from faulty_world import FIGURES, FaultyWorld
from operator_world import World


@pytest.fixture
def faulty(world: World) -> Iterator[FaultyWorld]:
    """A namespace, and operators that reach the API server through proxies."""
    with ExitStack() as stack:
        yield FaultyWorld(world, stack)
        for process in world.processes:  # before their proxies, or their ends would hang
            if process.poll() is None:
                process.kill()
                process.wait(10)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures as a table."""
    if FIGURES:
        terminalreporter.section("figures")
        for row, injected, result in FIGURES:
            terminalreporter.line(f"| {row} | {injected} | {result} |")
