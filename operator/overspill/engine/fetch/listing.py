"""What there is to load: a source → remote files by their names in the model's folder."""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import Message
from functools import partial
from typing import TypeVar

from overspill.engine.errors import InvalidOptions, ModelNotFound
from overspill.engine.fetch import hub, names, s3
from overspill.engine.fetch.credential import Credential
from overspill.engine.fetch.digest import Digest
from overspill.engine.fetch.errors import Interrupted, ModelSourceUnreachable
from overspill.engine.fetch.files import RemoteFile
from overspill.engine.fetch.source import Source
from overspill.engine.fetch.web import Refused, Web, explain

TRIES = 6  # in a row without a new byte; about half a minute
MAX_PAGES = 1_000  # of one listing; AWS puts 1,000 objects on each
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds

T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """The files of one model, and how to ask for them."""

    files: dict[str, RemoteFile]
    web: Web
    anonymous: bool

    @property
    def total(self) -> int | None:
        """Bytes of all files, None when the source does not say."""
        sizes = [file.size for file in self.files.values()]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None


def pause(failures: int, asked: float) -> float:
    """Seconds to wait after so many failures in a row: doubling, with jitter."""
    longest = min(FIRST_WAIT * 2 ** (failures - 1), LONGEST_WAIT)
    return max(asked, random.uniform(longest / 2, longest))  # noqa: S311 - spread, no secret


def persist(action: Callable[[], T], sleep: Callable[[float], object] = time.sleep) -> T:
    """Try until it works or TRIES have failed. Raises ModelSourceUnreachable."""
    for failures in range(1, TRIES + 1):
        try:
            return action()
        except Interrupted as error:
            if failures == TRIES:
                raise ModelSourceUnreachable(f"gave up after {TRIES} tries: {error}") from None
            sleep(pause(failures, error.retry_after))
    raise AssertionError("unreachable")


def look(source: Source, credential: Credential, sha256: str) -> Listing:
    """List the model. Raises a LoadFailed, ModelNotFound or ModelAmbiguous."""
    anonymous = not (credential.keys if source.scheme == "s3" else credential.token)
    lister = {"hf": _hub, "s3": _s3, "https": _single}[source.scheme]
    try:
        found, web = lister(source, credential)
    except Refused as refused:
        raise explain(refused, source.uri, anonymous=anonymous) from None
    files = names.choose(found, source.uri)
    if sha256:
        if len(files) != 1:
            raise InvalidOptions(f"model.sha256 is of one file, {source.uri} has {len(files)}")
        files = {name: _with_sha256(file, sha256) for name, file in files.items()}
    return Listing(files, web, anonymous)


Found = tuple[dict[str, RemoteFile], Web]


def _with_sha256(file: RemoteFile, sha256: str) -> RemoteFile:
    wanted = Digest("sha256", sha256)
    return replace(file, digests=tuple(dict.fromkeys((wanted, *file.digests))))


def _hub(source: Source, credential: Credential) -> Found:
    web = Web(lambda _, url: credential.bearer(url), credential.authority)
    body = persist(lambda: web.page(hub.listing_url(source)))
    files = hub.read_listing(source, body)
    placed = names.under(source.path, files)
    if not placed:
        raise ModelNotFound(f"{source.container} has no {source.path}; check spec.model.uri")
    return {name: files[remote] for remote, name in placed.items()}, web


def _single(source: Source, credential: Credential) -> Found:
    web = Web(lambda _, url: credential.bearer(url), credential.authority)

    def probe() -> RemoteFile:
        # Not HEAD: an address that was signed for GET refuses it.
        headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
        with web.request("GET", source.uri, headers) as response:
            return RemoteFile(source.uri, _size(response.headers), (), validator(response.headers))

    return {source.path: persist(probe)}, web


def _size(headers: Message) -> int | None:
    """The size of the whole, from an answer to a request for its first byte."""
    text = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
    return int(text) if text.isdecimal() and len(text) < 19 else None


def validator(headers: Message) -> str:
    """What If-Range may carry: a strong ETag, else a date."""
    etag = headers.get("ETag", "")
    if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag):
        return str(etag)
    date = headers.get("Last-Modified", "")
    return str(date) if re.fullmatch(r"[A-Za-z0-9,: ]{20,40}", date) else ""


def _s3(source: Source, credential: Credential) -> Found:
    bucket = s3.Bucket(source)
    try:
        return _bucket(bucket, credential)
    except Refused as refused:
        if not refused.region or refused.region == bucket.region:
            raise
        return _bucket(replace(bucket, region=refused.region), credential)


def _bucket(bucket: s3.Bucket, credential: Credential) -> Found:
    web = Web(lambda verb, url: bucket.authorize(credential, verb, url), credential.authority)
    return {
        name: persist(partial(_head, web, bucket, key))
        for name, key in _wanted(web, bucket).items()
    }, web


def _wanted(web: Web, bucket: s3.Bucket) -> dict[str, str]:
    """Keys by the names that they get."""
    source = bucket.source
    # A key with a known ending is one object: reading it must not need the right to list.
    if names.is_taken(source.path):
        return {source.path.rpartition("/")[2]: source.path}
    placed = names.under(source.path, _keys(web, bucket))
    if not placed:
        raise ModelNotFound(f"{source.uri} holds nothing; check spec.model.uri")
    return names.choose({name: key for key, name in placed.items()}, source.uri)


def _keys(web: Web, bucket: s3.Bucket) -> list[str]:
    """All keys of the prefix. Raises ModelSourceUnreachable when they do not end."""
    keys: list[str] = []
    token = ""
    for _ in range(MAX_PAGES):
        url = bucket.listing_url(f"{bucket.source.path}/", token)
        page = s3.read_page(bucket.source, persist(partial(web.page, url)))
        keys += page.keys
        token = page.token
        if len(keys) > names.MAX_FILES:
            break
        if not token:
            return keys
    raise ModelSourceUnreachable(
        f"the listing of {bucket.source.uri} has not ended after {len(keys)} objects, at most "
        f"{names.MAX_FILES} are taken; name a smaller prefix in spec.model.uri"
    )


def _head(web: Web, bucket: s3.Bucket, key: str) -> RemoteFile:
    url = bucket.object_url(key)
    with web.request("HEAD", url) as response:
        headers = response.headers
        length = headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() and len(length) < 19 else None
        return RemoteFile(url, size, s3.digests(headers), validator(headers))
