"""AWS Signature Version 4 for S3 requests without a body. Pure.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
The secret key itself is never sent; a signature holds for one request and a quarter of an hour.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlsplit

EMPTY = hashlib.sha256(b"").hexdigest()
UNRESERVED = "-_.~"


@dataclass(frozen=True)
class Keys:
    """An access key."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def sign(
    method: str, url: str, headers: Mapping[str, str], keys: Keys, region: str, now: float
) -> dict[str, str]:
    """Return the headers that sign a request; `headers` are those signed beside the host's.

    :param url: its path percent-encoded exactly once.
    :param now: seconds since the epoch.
    """
    parts = urlsplit(url)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    own = {"x-amz-date": stamp, "x-amz-content-sha256": EMPTY}
    if keys.session_token:
        own["x-amz-security-token"] = keys.session_token
    signed = {"host": parts.netloc, **{k.lower(): v for k, v in headers.items()}, **own}
    names = ";".join(sorted(signed))
    request = "\n".join(
        [
            method,
            parts.path or "/",
            _query(parts.query),
            *(f"{name}:{signed[name].strip()}" for name in sorted(signed)),
            "",
            names,
            EMPTY,
        ]
    )
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, _sha256(request)])
    key = b"AWS4" + keys.secret_access_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    own["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return own


def _query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    encoded = [(quote(k, safe=UNRESERVED), quote(v, safe=UNRESERVED)) for k, v in pairs]
    return "&".join(f"{key}={value}" for key, value in sorted(encoded))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
