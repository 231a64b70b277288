"""Sites with and without TLS, and loads that go to them."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from fetch_site import Prepare, Site, serving

from overspill.engine.fetch import listing, load, progress, source
from overspill.engine.fetch.options import Options


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority of our own."""
    return trustme.CA()


@pytest.fixture
def site(authority: trustme.CA) -> Iterator[Site]:
    """A site that speaks https, as localhost and as 127.0.0.1."""
    with serving(_tls(authority)) as found:
        yield found


@pytest.fixture
def other(authority: trustme.CA) -> Iterator[Site]:
    """Another one."""
    with serving(_tls(authority)) as found:
        yield found


@pytest.fixture
def plain() -> Iterator[Site]:
    """A site that speaks http."""
    with serving() as found:
        yield found


def _tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty volume."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def prepare(cache: Path, tmp_path: Path, authority: trustme.CA) -> Prepare:
    """Make the options of a load; further arguments are keys of its Secret."""

    def options(
        uri: str, endpoint: str = "", sha256: str = "", holder: str = "one", **secret: str
    ) -> Options:
        folder = tmp_path / "secret"
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(authority.cert_pem.bytes())
        for name, value in secret.items():
            (folder / name).write_text(value)
        where = source.parse(uri, endpoint)
        return Options(where, cache, cache / "key", sha256, 0, folder, holder)

    return options


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait milliseconds where a load would wait seconds."""
    monkeypatch.setattr(listing, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(load, "POLL", 0.02)
    monkeypatch.setattr(load, "BEAT", 0.02)
    monkeypatch.setattr(progress, "END_SECONDS", 0.005)
