"""Load a model: wait for the lease, list, download, publish."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import structlog

from overspill.engine.fetch import credential
from overspill.engine.fetch.credential import Credential
from overspill.engine.fetch.download import Download
from overspill.engine.fetch.errors import ModelSourceUnreachable, SourceChanged, Stopped
from overspill.engine.fetch.lease import BEAT, Lease, LeaseLost
from overspill.engine.fetch.listing import Listing, look
from overspill.engine.fetch.options import Options
from overspill.engine.fetch.progress import Meter, serve
from overspill.engine.fetch.store import Store, volume
from overspill.engine.fetch.web import Refused, explain

log = structlog.get_logger(__name__)

FILES_AT_ONCE = 4
LISTINGS = 3  # of a source that changes while it is loaded
POLL = 1.0  # seconds between two looks at another loader's work


def load(options: Options) -> None:
    """Return when the model is in its folder, loaded by us or by another.

    Raises an EngineError that says why it cannot be.
    """
    store = Store(options.folder, options.holder)
    with volume():
        store.sweep()
    if store.complete():
        log.info("model is there already", folder=str(options.folder))
        return
    loader = _Loader(options, store)
    with serve(options.port, loader.meter), volume():
        loader.run()
    log.info("model is there", folder=str(options.folder), **loader.meter.snapshot())


class _Loader:
    def __init__(self, options: Options, store: Store) -> None:
        self._options = options
        self._store = store
        self._lease = Lease(store.work, options.holder)
        self._stop = threading.Event()  # ends the downloads of this round
        self._lost = False  # the lease
        self.meter = Meter()

    def run(self) -> None:
        waiting = False
        while True:
            if self._lease.acquire():
                if self._held():
                    return
            elif self._store.complete():
                return
            elif not waiting:
                log.info("another loader is at work; waiting for it")
                waiting = True
            else:
                self.meter.show(*self._lease.note())
            time.sleep(POLL)

    def _held(self) -> bool:
        """Load under the lease; False when it was lost."""
        try:
            if not self._store.complete():  # by another, before we had the lease
                with self._kept():
                    self._load(credential.read(self._options.secret))
            self._store.clear()
            return True
        except (Stopped, LeaseLost):
            log.warning("another loader took over")
            return False
        except BaseException:
            self._lease.release()
            raise

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Beat, and tell how far we are, while the block runs."""
        self._lost = False
        done = threading.Event()
        beater = threading.Thread(target=self._beat, args=(done,))
        beater.start()
        try:
            yield
        finally:
            done.set()
            beater.join()

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(BEAT):
            log.info("loading", **self.meter.snapshot())
            try:
                self._lease.beat(*self.meter.count())
            except LeaseLost:
                self._lost = True
                self._stop.set()
                return

    def _load(self, secret: Credential) -> None:
        source = self._options.source
        for _ in range(LISTINGS):
            found = look(source, secret, self._options.sha256)
            try:
                self._files(found)
            except SourceChanged:
                log.warning("the source changed; listing it again")
                continue
            except Refused as refused:
                raise explain(refused, source.uri, anonymous=found.anonymous) from None
            self._lease.beat(*self.meter.count())  # still ours, or nothing is shown
            self._store.publish(found.files, {"uri": source.uri})
            return
        raise ModelSourceUnreachable(f"{source.uri} changes faster than it can be loaded")

    def _files(self, found: Listing) -> None:
        """Load all files, a few at a time; the first fault ends the others and is raised."""
        self._stop = threading.Event()
        if self._lost:
            raise Stopped
        self._store.prepare()
        self._store.check_room(found.files)
        self.meter.expect(found.total)
        log.info("loading", files=len(found.files), total=found.total)
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            futures = [pool.submit(self._one, found, name) for name in found.files]
        faults = [fault for future in futures if (fault := future.exception())]
        if faults:
            raise next((f for f in faults if not isinstance(f, Stopped)), faults[0])

    def _one(self, found: Listing, name: str) -> None:
        file = found.files[name]
        part = self._store.part(name, file)
        try:
            Download(file, part, found.web, self.meter, self._stop).run()
        except BaseException:
            self._stop.set()
            raise
