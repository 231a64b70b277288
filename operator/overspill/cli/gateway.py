"""`overspill gateway`: the real gateway on this machine, its objects from a folder.

The cluster's client is not imported, not even for an error's type: it is large, and no part of it
is needed here.
"""

import os
from pathlib import Path

from overspill.cli.extras import packages_of

with packages_of("gateway"):
    from overspill.gateway.folder import InvalidFile
    from overspill.gateway.settings import InvalidSetting
    from overspill.gateway.standalone import run as serve


def run(folder: Path, host: str, port: int, internal_port: int) -> None:
    """Serve until SIGTERM or Ctrl-C.

    :raises CommandError: the objects or the settings are wrong.
    """
    try:
        serve(os.environ, folder, host, port, internal_port)
    except (InvalidFile, InvalidSetting) as error:
        from overspill.cli.errors import USAGE, CommandError

        raise CommandError(str(error), USAGE) from None
