"""The proxy on the way to providers, where a cluster reaches the outside through one only.

$HTTPS_PROXY and $NO_PROXY as programs commonly read them, for https:// URLs of providers alone:
engines, the API server and plain-http providers are inside. A password in the proxy's URL goes
to the proxy and is shown nowhere; ~/.netrc is not looked at, its entries would clash with keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy, and the hosts that are reached without it.

    :param url: without user and password.
    :param no_proxy: host names, each with its subdomains, separated by commas; ``*`` for all.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    no_proxy: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self | None:
        """Return the proxy that the environment names, None without one.

        :raises ValueError: when it cannot be used; the text does not repeat it.
        """
        text = (env.get("https_proxy") or env.get("HTTPS_PROXY") or "").strip()
        if not text:
            return None
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:  # its text may hold the password
            host = port = None
        if not host or parts.scheme not in ("http", "https"):
            raise ValueError("must be http://host:port or https://host:port, of a CONNECT proxy")
        bare = f"[{host}]" if ":" in host else host
        return cls(
            url=f"{parts.scheme}://{bare}" + (f":{port}" if port else ""),
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            no_proxy=(env.get("no_proxy") or env.get("NO_PROXY") or "").strip(),
        )

    def serves(self, url: str) -> bool:
        """Whether a provider's URL is reached by the proxy."""
        parts = urlsplit(url)
        return parts.scheme == "https" and not proxy_bypass(parts.netloc, {"no": self.no_proxy})
