"""Load one file: go on where it was, and verify."""

import threading
from http.client import HTTPResponse

from overspill.engine.fetch.errors import (
    Interrupted,
    ModelDigestMismatch,
    ModelSourceUnreachable,
    SourceChanged,
    Stopped,
)
from overspill.engine.fetch.files import RemoteFile
from overspill.engine.fetch.listing import TRIES, pause, validator
from overspill.engine.fetch.progress import Meter
from overspill.engine.fetch.store import CHUNK, Part
from overspill.engine.fetch.web import Web, faults


class Download:
    """One file on its way to its part."""

    def __init__(
        self, file: RemoteFile, part: Part, web: Web, meter: Meter, stop: threading.Event
    ) -> None:
        """Prepare; `stop` ends it between two chunks."""
        self._file = file
        self._part = part
        self._web = web
        self._meter = meter
        self._stop = stop

    def run(self) -> None:
        """Load, verify and finish the file.

        Raises a LoadFailed, Refused, SourceChanged, or Stopped.
        """
        if self._part.finished:
            self._meter.found(self._part.there)
            return
        with self._part.opened():
            self._meter.found(self._part.size)
            resumed = self._part.size > 0
            self._fill()
            if resumed and self._part.wrong():  # what an earlier load left may be at fault
                self._restart()
                self._fill()
            wrong = self._part.wrong()
            if wrong:
                self._meter.add(-self._part.size)
                self._part.discard()
                raise ModelDigestMismatch(
                    f"{self._name()} is not what its {wrong.algorithm} digest says "
                    f"({wrong.value[:16]}…); what was loaded is discarded"
                )
            self._part.finish()

    def _name(self) -> str:
        return self._file.url.partition("?")[0].rpartition("/")[2][:80]

    def _fill(self) -> None:
        """Load until the file is whole, through interruptions."""
        failures = 0
        while True:
            before = self._part.size
            try:
                self._request()
                return
            except Interrupted as error:
                failures = 1 if self._part.size > before else failures + 1
                if failures >= TRIES:
                    raise ModelSourceUnreachable(
                        f"gave up after {failures} tries: {error}"
                    ) from None
                if self._stop.wait(pause(failures, error.retry_after)):
                    raise Stopped from None

    def _request(self) -> None:
        file, part = self._file, self._part
        if file.size is not None and part.size > file.size:
            self._restart()
        if part.size == file.size:
            return
        headers = {"Accept-Encoding": "identity"}
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if file.validator:
                headers["If-Range"] = file.validator
        with self._web.request("GET", file.url, headers) as response:
            self._begin(response)
            self._copy(response)
        if file.size is not None and part.size < file.size:
            raise Interrupted("the source ended the file early")

    def _begin(self, response: HTTPResponse) -> None:
        """See that the answer goes on where we are, with the file that was listed."""
        file, part, headers = self._file, self._part, response.headers
        if response.status == 416:
            raise SourceChanged
        if headers.get("Content-Encoding", "identity") != "identity":
            raise ModelSourceUnreachable("the source compresses the file although asked not to")
        if file.validator and validator(headers) not in ("", file.validator):
            raise SourceChanged
        if response.status == 206:
            total = "*" if file.size is None else str(file.size)
            told = headers.get("Content-Range", "")
            if not told.startswith(f"bytes {part.size}-") or told.rpartition("/")[2] != total:
                raise SourceChanged
            return
        if part.size:  # the whole again: it knows no ranges, or could not tell
            self._restart()
        length = headers.get("Content-Length")
        if file.size is not None and length not in (None, str(file.size)):
            raise SourceChanged
        if file.size is None and not (file.digests or response.chunked):
            raise ModelSourceUnreachable(
                "the source does not say how long the file is; give model.sha256"
            )

    def _copy(self, response: HTTPResponse) -> None:
        while True:
            if self._stop.is_set():
                raise Stopped
            with faults("the source"):
                data = response.read1(CHUNK)  # what has arrived, so that a stall loses nothing
            if not data:
                return
            if self._file.size is not None and self._part.size + len(data) > self._file.size:
                raise SourceChanged  # more than was announced, and room was checked for
            self._part.write(data)
            self._meter.add(len(data))

    def _restart(self) -> None:
        self._meter.add(-self._part.size)
        self._part.restart()
