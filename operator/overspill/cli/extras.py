"""Commands that need more packages than the command line itself."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def packages_of(extra: str) -> Iterator[None]:
    """Import what belongs to an extra of the package within this block.

    :raises CommandError: when it is not installed; the text says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        from overspill.cli.errors import USAGE, CommandError

        text = f"overspill {extra} needs {error.name}: pip install 'overspill[{extra}]'"
        raise CommandError(text, USAGE) from None
