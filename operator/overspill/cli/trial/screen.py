"""What is shown: lines that stay, and on a terminal the meter below them, which counts."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text


class Screen:
    """Standard output. Not a terminal: plain lines, and nothing that changes."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.meter = ""
        self._partial = ""  # of an answer that comes

    def step(self, text: str) -> None:
        """Announce a step."""
        self.console.print(f"\n[bold]{escape(text)}[/bold]")

    def note(self, text: str) -> None:
        """Say something within a step."""
        self.console.print(f"  {escape(text)}")

    def stream(self, text: str) -> None:
        """Show more of an answer; ``note`` it when it is whole."""
        self._partial += text

    def whole(self) -> None:
        """The answer is whole."""
        self._partial = ""

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Show the meter as long as the block."""
        if not self.console.is_terminal:
            yield
            return
        with Live(
            get_renderable=self._below, console=self.console, transient=True, refresh_per_second=4
        ):
            yield

    def _below(self) -> Group:
        return Group(Text(f"  {self._partial}"), Text(f"  {self.meter}", style="cyan"))
