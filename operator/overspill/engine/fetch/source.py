"""A model's URI → where it is. Pure.

hf://organisation/repository[@revision][/path]     endpoint: a hub, default the public one
s3://bucket/key-or-prefix                          endpoint: an S3 API, default AWS
https://host/path                                  one file
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from overspill.engine.errors import InvalidOptions

HUB = "https://huggingface.co"
_HF = re.compile(r"hf://([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?")
_S3 = re.compile(r"s3://([^/]+)/(.+)")


@dataclass(frozen=True)
class Source:
    """One model somewhere. `endpoint` is "" for the protocol's own default."""

    uri: str
    scheme: str  # hf | s3 | https
    endpoint: str = ""
    container: str = ""  # repository or bucket
    revision: str = ""
    path: str = ""  # inside the container; for https the file's name


def parse(uri: str, endpoint: str) -> Source:
    """Where `uri` is. Raises InvalidOptions."""
    scheme = uri.partition("://")[0]
    if scheme == "hf" and (match := _HF.fullmatch(uri)):
        hub = (endpoint or HUB).rstrip("/")
        path = (match[3] or "").strip("/")
        return Source(uri, "hf", _http(hub), match[1], match[2] or "main", path)
    if scheme == "s3" and (match := _S3.fullmatch(uri)):
        api = _http(endpoint.rstrip("/")) if endpoint else ""
        return Source(uri, "s3", api, match[1], "", match[2].strip("/"))
    if scheme == "https" and not endpoint:
        _http(uri)
        return Source(uri, "https", path=unquote(urlsplit(uri).path).rpartition("/")[2])
    raise InvalidOptions(
        f"model.uri {uri!r} is none of hf://organisation/repository, s3://bucket/key, "
        "https://host/path"
    )


def _http(url: str) -> str:
    """Return `url` when it is one without a user, query or fragment. Raises InvalidOptions."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment or not url.isprintable():
        # Not shown: a password may be in it.
        raise InvalidOptions("model.uri or model.endpoint is no plain URL https://host[:port]/path")
    return url
