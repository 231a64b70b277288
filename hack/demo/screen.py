"""What the demo shows while it runs: one line a step, and what each wait waits for."""

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

console = Console(highlight=False)
QUIET_SECONDS = 10  # between two lines of a wait where there is no terminal


def step(text: str) -> None:
    """Announce a step."""
    console.print(f"\n[bold]{text}[/bold]")


def note(text: str) -> None:
    """Say something within a step."""
    console.print(f"  {text}", soft_wrap=True)


def wait(what: str, usual: float, probe: Callable[[], tuple[bool, str]], timeout: float) -> bool:
    """Show a wait until ``probe`` says that it is over.

    :param what: what is waited for.
    :param usual: seconds it usually takes, shown.
    :param probe: returns whether it is over, and how things stand in words.
    :param timeout: seconds after which the wait is given up.
    :returns: whether it happened in time.
    """
    start, last_line, terminal = time.monotonic(), 0.0, sys.stdout.isatty()
    with console.status("") as status:
        while True:
            done, state = probe()
            elapsed = time.monotonic() - start
            line = f"{what}: {state} · {elapsed:.0f} s of usually {usual:.0f} s"
            status.update(line)
            if done or elapsed > timeout:
                break
            if not terminal and elapsed - last_line >= QUIET_SECONDS:
                last_line = elapsed
                note(line)
            time.sleep(0.5)
    mark = "[green]✓[/green]" if done else "[red]✗[/red]"
    console.print(f"  {mark} {what}: {state} · {elapsed:.1f} s", soft_wrap=True)
    return done


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table; the first column is left-aligned, the others right."""
    out = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        out.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        out.add_row(*row)
    console.print(out)
