"""Models on a hub: https://huggingface.co/docs/hub/api, and anything that speaks the same.

One request lists a revision with sizes and digests; files come from `/resolve/COMMIT/`, so all of
them are of one commit. Large files are redirected to a content network, without the token.
"""

import json
from urllib.parse import quote

from overspill.engine.fetch.digest import Digest
from overspill.engine.fetch.errors import ModelDigestMismatch, ModelSourceUnreachable
from overspill.engine.fetch.files import RemoteFile
from overspill.engine.fetch.source import Source


def listing_url(source: Source) -> str:
    """The address of the listing."""
    revision = quote(source.revision, safe="")
    return f"{source.endpoint}/api/models/{source.container}/revision/{revision}?blobs=true"


def read_listing(source: Source, body: bytes) -> dict[str, RemoteFile]:
    """The files of the listing by name. Raises ModelSourceUnreachable, ModelDigestMismatch."""
    try:
        listing = json.loads(body)
        commit = str(listing["sha"])
        return {
            str(entry["rfilename"]): _file(source, commit, entry) for entry in listing["siblings"]
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelSourceUnreachable(
            f"{source.endpoint} gives no listing of {source.container}; is it a hub?"
        ) from None


def _file(source: Source, commit: str, entry: dict[str, object]) -> RemoteFile:
    name = str(entry["rfilename"])
    size = entry.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError("no size")
    # A surrogate cannot be encoded; `names.checked` refuses it later.
    path = quote(name.encode(errors="surrogatepass"))
    url = f"{source.endpoint}/{source.container}/resolve/{quote(commit, safe='')}/{path}"
    return RemoteFile(url, size, _digests(entry))


def _digests(entry: dict[str, object]) -> tuple[Digest, ...]:
    large = entry.get("lfs")
    try:
        if isinstance(large, dict):
            return (Digest("sha256", str(large["sha256"])),)
        return (Digest("git", str(entry["blobId"])),) if entry.get("blobId") else ()
    except ValueError:
        name = str(entry["rfilename"])[:80]
        raise ModelDigestMismatch(f"the hub's digest of {name!a} is malformed") from None
