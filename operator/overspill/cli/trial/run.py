"""From the command to its end, which leaves nothing: no process, no port, no file."""

import asyncio
import contextlib
import signal
import tempfile
import time
from pathlib import Path

import aiohttp

from overspill.cli.trial import model as models
from overspill.cli.trial import objects, parts
from overspill.cli.trial.client import Client
from overspill.cli.trial.meter import Meter
from overspill.cli.trial.screen import Screen
from overspill.cli.trial.story import INTRODUCTION, Story
from overspill.gateway.plane import run_loop, stop_signal

INTERRUPTED = 130  # as a shell says of Ctrl-C
PREFIX = "overspill-try-"  # of the folder


class Trial:
    """One run.

    :param given: a GGUF file, None for the small model.
    """

    def __init__(self, given: Path | None) -> None:
        self._given, self._screen = given, Screen()
        self.status = INTERRUPTED  # until the story is told

    async def main(self) -> None:
        """Tell the story and stay up, until Ctrl-C, SIGTERM or the terminal's end.

        :raises CommandError: when something cannot be shown.
        """
        stop = stop_signal()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stop.set)
        playing = asyncio.create_task(self._play())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({playing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (playing, stopped):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        self._screen.note("Ended; nothing is left.")

    async def _play(self) -> None:
        screen, began = self._screen, time.monotonic()
        screen.console.print("\n".join(INTRODUCTION))
        with tempfile.TemporaryDirectory(prefix=PREFIX) as name, screen.alive():
            folder = Path(name)
            model = await self._model(folder)
            objects_folder = folder / "objects"
            objects_folder.mkdir()
            async with (
                parts.everything(objects_folder, folder, model) as (plane, key),
                aiohttp.ClientSession() as session,
            ):
                url = f"http://{parts.HOST}:{plane.public.port}"
                meter = Meter(plane)
                screen.note(
                    f"engine, stand-in and gateway are ready after {time.monotonic() - began:.1f} s"
                )
                story = Story(screen, Client(session, url, key), meter, objects_folder)
                watching = asyncio.create_task(story.watch())
                try:
                    await story.tell()
                    self._stay(url, key, objects_folder, time.monotonic() - began)
                    await watching
                finally:
                    watching.cancel()

    async def _model(self, folder: Path) -> Path:
        screen, began = self._screen, time.monotonic()
        screen.step("The parts")
        if self._given is not None:
            return self._given
        screen.meter = "loading SmolLM2-135M-Instruct, 93 MB"
        found = await models.download(folder)
        screen.note(f"SmolLM2-135M-Instruct, 4 bits: {time.monotonic() - began:.1f} s")
        return found

    def _stay(self, url: str, key: str, folder: Path, seconds: float) -> None:
        """Say what to do now; the meter goes on."""
        self.status = 0
        self._screen.step(f"All of that in {seconds:.0f} s. It stays up until Ctrl-C: try")
        self._screen.console.print("\n".join(_lines(url, key)), markup=False)
        self._screen.note(f"The gateway's objects are in {folder}: what you change there holds.")


def _lines(url: str, key: str) -> list[str]:
    """Return what to paste into a shell, for clients of both APIs."""
    asked = '"messages": [{"role": "user", "content": "Hello!"}]'
    options = (
        f'model="{objects.SERVICE}", max_tokens=32, messages=[dict(role="user", content="Hi")]'
    )
    return [
        f"export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY={key}",
        f"export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY={key}",
        'curl -si $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\',
        f"""  -d '{{"model": "{objects.SERVICE}", "max_tokens": 32, {asked}}}'""",
        "python3 -c 'import openai; print(openai.OpenAI().chat.completions.create(",
        f"  {options}))'",
        "python3 -c 'import anthropic; print(anthropic.Anthropic().messages.create(",
        f"  {options}))'",
    ]


def run(model: Path | None) -> int:
    """Show it; return the exit status.

    :param model: a GGUF file, None for the small model.
    :raises CommandError: when something cannot be shown.
    """
    trial = Trial(model)
    run_loop("error", trial.main())
    return trial.status
