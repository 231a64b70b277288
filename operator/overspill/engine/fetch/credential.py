"""The Secret that a model names: what may be sent, and to which hosts.

The Secret's owner decides where its credential goes (key `hosts`), not the service that names it:
else anyone who may create a service could have any Secret sent anywhere.
"""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from overspill.engine.fetch.errors import ModelSecretRefused
from overspill.engine.fetch.sigv4 import Keys

MAX_BYTES = 64 * 1024  # of one key of the Secret


@dataclass(frozen=True)
class Credential:
    """What the Secret holds; nothing of it is ever shown but `hosts`."""

    hosts: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    keys: Keys | None = field(default=None, repr=False)
    authority: str = field(default="", repr=False)  # certificates to trust as well, in PEM

    def check(self, url: str) -> None:
        """Raise ModelSecretRefused unless the Secret names the host of `url`.

        An entry is a host, or `*.domain` for every host below it.
        """
        host = (urlsplit(url).hostname or "").lower()
        if not self.hosts:
            raise ModelSecretRefused(
                f"the Secret says not where it may be sent; add the key hosts: {host} to it"
            )
        if not any(_names(entry, host) for entry in self.hosts):
            raise ModelSecretRefused(
                f"the Secret is for {', '.join(self.hosts)}, not for {host}; "
                "change its key hosts or the service's model.secretRef"
            )

    def bearer(self, url: str) -> dict[str, str]:
        """The header that carries the token to `url`. Raises ModelSecretRefused."""
        if not self.token:
            return {}
        self.check(url)
        if urlsplit(url).scheme != "https":
            raise ModelSecretRefused("a token is sent over https only; change model.endpoint")
        return {"Authorization": f"Bearer {self.token}"}


def _names(entry: str, host: str) -> bool:
    if entry.startswith("*."):
        return host.endswith(entry[1:]) and len(host) > len(entry) - 1
    return entry == host


def read(folder: Path) -> Credential:
    """The Secret mounted at `folder`; an empty credential when there is none.

    Raises ModelSecretRefused when it cannot be used as it is.
    """
    identifier, secret = _text(folder, "accessKeyID"), _text(folder, "secretAccessKey")
    token = _text(folder, "token")
    if bool(identifier) != bool(secret):
        raise ModelSecretRefused("the Secret needs both accessKeyID and secretAccessKey, or none")
    for value in (token, identifier, secret):
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise ModelSecretRefused("a value of the Secret is no single printable word")
    hosts = _text(folder, "hosts").replace(",", " ").lower().split()
    keys = Keys(identifier, secret, _text(folder, "sessionToken")) if identifier else None
    return Credential(tuple(hosts), token, keys, _text(folder, "ca.crt"))


def _text(folder: Path, name: str) -> str:
    try:
        data = (folder / name).read_bytes()
        if len(data) > MAX_BYTES:
            raise ModelSecretRefused(f"the Secret's {name} is longer than {MAX_BYTES} bytes")
        return data.decode().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        raise ModelSecretRefused(f"the Secret's {name} cannot be read as text") from None
