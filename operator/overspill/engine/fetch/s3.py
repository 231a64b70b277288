"""Models in a bucket: the S3 API of AWS and of everything that speaks it. Pure but for the clock.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
Addresses are `endpoint/bucket/key` where an endpoint is given, `bucket.s3.REGION.amazonaws.com`
on AWS. A bucket of another region says which, and is asked again there.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree

from overspill.engine.fetch.credential import Credential
from overspill.engine.fetch.digest import Digest
from overspill.engine.fetch.errors import ModelSourceUnreachable
from overspill.engine.fetch.sigv4 import UNRESERVED, sign
from overspill.engine.fetch.source import Source

DEFAULT_REGION = "us-east-1"
_REGION_IN_HOST = re.compile(r"\bs3[.-]([a-z]{2}(?:-[a-z]+)+-\d)\.")


@dataclass(frozen=True)
class Bucket:
    """A bucket and how it is addressed."""

    source: Source
    region: str = ""

    @property
    def base(self) -> str:
        """The address of the bucket."""
        name = self.source.container
        if self.source.endpoint:
            return f"{self.source.endpoint}/{quote(name)}"
        if "." in name:  # no certificate fits such a host name
            return f"https://s3.{self._region}.amazonaws.com/{quote(name)}"
        return f"https://{name}.s3.{self._region}.amazonaws.com"

    @property
    def _region(self) -> str:
        told = _REGION_IN_HOST.search(urlsplit(self.source.endpoint).netloc)
        return self.region or (told[1] if told else DEFAULT_REGION)

    def object_url(self, key: str) -> str:
        """The address of one object."""
        return f"{self.base}/{quote(key.encode(errors='surrogatepass'), safe='/' + UNRESERVED)}"

    def listing_url(self, prefix: str, token: str) -> str:
        """The address of one page of the objects under `prefix`."""
        query = f"encoding-type=url&list-type=2&prefix={quote(prefix, safe=UNRESERVED)}"
        return f"{self.base}/?" + (
            f"continuation-token={quote(token, safe=UNRESERVED)}&{query}" if token else query
        )

    def authorize(self, credential: Credential, method: str, url: str) -> Mapping[str, str]:
        """The headers of a signed request; none without keys. Raises ModelSecretRefused.

        A signature may go over plain http, which a bucket inside the cluster often speaks: it
        holds for one request, and the key is not in it.
        """
        asked = {"x-amz-checksum-mode": "ENABLED"} if method == "HEAD" else {}
        if credential.keys is None:
            return asked
        credential.check(url)
        return asked | sign(method, url, asked, credential.keys, self._region, time.time())


@dataclass(frozen=True)
class Page:
    """One page of a listing; `token` asks for the next, "" is the last."""

    keys: dict[str, int]  # size in bytes by key
    token: str


def read_page(source: Source, body: bytes) -> Page:
    """A page of ListObjectsV2. Raises ModelSourceUnreachable."""
    try:
        if b"<!" in body:  # no document type, so no entities that expand
            raise ValueError("declarations")
        root = ElementTree.fromstring(body)  # noqa: S314 - without entities it is harmless
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        # Not every server encodes names when it is asked to; one that does says so.
        encoded = root.findtext("EncodingType", "") == "url"
        keys = {}
        for item in root.iter("Contents"):
            key = item.findtext("Key", "")
            keys[unquote_plus(key) if encoded else key] = int(item.findtext("Size", ""))
        more = root.findtext("IsTruncated", "") == "true"
        return Page(keys, root.findtext("NextContinuationToken", "") if more else "")
    except (ElementTree.ParseError, ValueError):
        raise ModelSourceUnreachable(f"the listing of bucket {source.container} is no S3") from None


_CHECKSUMS = ("sha256", "sha1", "crc32")


def digests(headers: Message) -> tuple[Digest, ...]:
    """What S3 says of a whole object's bytes, the strongest only.

    A checksum of checksums (`value-3`) tells nothing about the bytes, and an ETag is their MD5
    only where the object was written in one part and not encrypted with a key of KMS's.
    """
    etag = headers.get("ETag", "").strip('"').lower()
    told = headers.get("x-amz-checksum-type", "")  # older servers leave it out
    if told == "FULL_OBJECT" or (not told and "-" not in etag):
        for algorithm in _CHECKSUMS:
            text = headers.get(f"x-amz-checksum-{algorithm}", "")
            found = Digest.from_base64(algorithm, text) if text else None
            if found:
                return (found,)
    plain = headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    customer = headers.get("x-amz-server-side-encryption-customer-algorithm")
    if plain and not customer and re.fullmatch(r"[0-9a-f]{32}", etag):
        return (Digest("md5", etag),)
    return ()
