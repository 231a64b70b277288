"""S3: signatures as AWS publishes them, addresses, listings, digests; a server that redirects."""

import calendar
import time
from email.message import Message
from pathlib import Path

import pytest
from fetch_site import Page, Prepare, Served, Site

from overspill.engine.fetch import listing as listing_of
from overspill.engine.fetch import names, s3, source
from overspill.engine.fetch.errors import ModelSourceUnreachable
from overspill.engine.fetch.load import load
from overspill.engine.fetch.sigv4 import EMPTY, Keys, sign

# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
EXAMPLE = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOON = calendar.timegm(time.strptime("20130524", "%Y%m%d"))
HOST = "https://examplebucket.s3.amazonaws.com"
XML = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
{more}{objects}</ListBucketResult>"""


@pytest.mark.parametrize(
    ("path", "headers", "signature"),
    [
        (
            "/test.txt",
            {"Range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "/?lifecycle",
            {},
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "/?max-keys=2&prefix=J",
            {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_the_signatures_that_aws_publishes(
    path: str, headers: dict[str, str], signature: str
) -> None:
    signed = sign("GET", HOST + path, headers, EXAMPLE, "us-east-1", NOON)
    assert signed["Authorization"].endswith(f"Signature={signature}")
    assert signed["x-amz-content-sha256"] == EMPTY


def test_a_session_token_is_signed() -> None:
    keys = Keys("id", "secret", "session")
    signed = sign("GET", HOST, {}, keys, "us-east-1", NOON)
    assert signed["x-amz-security-token"] == "session"
    assert "x-amz-security-token" in signed["Authorization"]
    assert "secret" not in repr(keys)
    assert "session'" not in repr(keys)


@pytest.mark.parametrize(
    ("uri", "endpoint", "region", "base"),
    [
        ("s3://b/k", "", "", "https://b.s3.us-east-1.amazonaws.com"),
        ("s3://b/k", "", "eu-west-1", "https://b.s3.eu-west-1.amazonaws.com"),
        ("s3://b.c/k", "", "", "https://s3.us-east-1.amazonaws.com/b.c"),
        ("s3://b/k", "http://minio.team:9000/", "", "http://minio.team:9000/b"),
    ],
)
def test_addresses(uri: str, endpoint: str, region: str, base: str) -> None:
    assert s3.Bucket(source.parse(uri, endpoint), region).base == base


def headers(**given: str) -> Message:
    message = Message()
    for name, value in given.items():
        message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("given", "algorithm"),
    [
        ({"ETag": '"' + "a" * 32 + '"'}, "md5"),
        ({"ETag": '"' + "a" * 32 + '-3"'}, None),
        ({"ETag": '"' + "a" * 32 + '"', "x_amz_server_side_encryption": "aws:kms"}, None),
        ({"ETag": '"x"', "x_amz_checksum_sha256": "A" * 43 + "="}, "sha256"),
        ({"ETag": '"x"', "x_amz_checksum_crc32": "AAAAAA=="}, "crc32"),
        ({"ETag": '"x-2"', "x_amz_checksum_crc32": "AAAAAA=="}, None),
        (
            {
                "ETag": '"x-2"',
                "x_amz_checksum_crc32": "AAAAAA==",
                "x_amz_checksum_type": "FULL_OBJECT",
            },
            "crc32",
        ),
        ({"ETag": '"x"', "x_amz_checksum_sha256": "A" * 43 + "=-3"}, None),
        ({"x_amz_checksum_sha256": "AAAA"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_what_an_object_is_checked_by(given: dict[str, str], algorithm: str | None) -> None:
    assert [d.algorithm for d in s3.digests(headers(**given))] == ([algorithm] if algorithm else [])


def listing(*keys: str, token: str = "", encoded: bool = True) -> Page:
    more = "<IsTruncated>false</IsTruncated>"
    if token:
        more = (
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        )
    more += "<EncodingType>url</EncodingType>" if encoded else ""
    objects = "".join(f"<Contents><Key>{k}</Key><Size>1</Size></Contents>" for k in keys)
    return Page(body=XML.format(more=more, objects=objects).encode())


@pytest.mark.parametrize(("encoded", "key"), [(True, "chat/ü b"), (False, "chat/%C3%BC+b")])
def test_names_are_decoded_where_the_server_encoded_them(encoded: bool, key: str) -> None:
    page = s3.read_page(
        source.parse("s3://b/chat", ""), listing("chat/%C3%BC+b", encoded=encoded).body
    )
    assert list(page.keys) == [key]


def test_pages_of_a_bucket_without_a_key(plain: Site, cache: Path, prepare: Prepare) -> None:
    query = "encoding-type=url&list-type=2&prefix=chat%2F"
    plain.answers[f"/b/?{query}"] = listing("chat/", "chat/a+b.json", token="t/1")
    plain.answers[f"/b/?continuation-token=t%2F1&{query}"] = listing("chat/m.gguf", "chat/x.bin")
    plain.answers["/b/chat/a%20b.json"] = Served(b"{}", '"j"')
    plain.answers["/b/chat/m.gguf"] = Served(b"weights", '"w"')
    load(prepare("s3://b/chat", plain.url()))
    assert (cache / "key" / "a b.json").read_bytes() == b"{}"
    assert (cache / "key" / "m.gguf").read_bytes() == b"weights"
    assert not any("Authorization" in asked.headers for asked in plain.asked)


def test_a_listing_without_end(
    plain: Site, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "MAX_FILES", 100)
    monkeypatch.setattr(listing_of, "MAX_PAGES", 7)
    query = "encoding-type=url&list-type=2&prefix=chat%2F"
    for keys, asked in ([], 7), ([f"chat/{n}.bin" for n in range(60)], 3):
        plain.asked.clear()
        plain.answers[f"/b/?{query}"] = listing("chat/m.gguf", token="t")
        plain.answers[f"/b/?continuation-token=t&{query}"] = listing(*keys, token="t")
        with pytest.raises(ModelSourceUnreachable, match=r"not ended after .* smaller prefix"):
            load(prepare("s3://b/chat", plain.url()))
        assert len(plain.asked) == asked


def test_a_bucket_of_another_region(plain: Site, prepare: Prepare) -> None:
    answer = Page(
        400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-north-1</Region>"
    )
    plain.answers["/b/?encoding-type=url&list-type=2&prefix=chat%2F"] = [
        answer,
        listing("chat/m.gguf"),
    ]
    plain.answers["/b/chat/m.gguf"] = Served(b"weights", '"w"')
    secret = {"hosts": "localhost", "accessKeyID": "id", "secretAccessKey": "canary0123456789"}
    load(prepare("s3://b/chat", plain.url(), **secret))
    signed = [asked.headers["Authorization"] for asked in plain.asked]
    assert ["us-east-1" in s for s in signed] == [True, *[False] * (len(signed) - 1)]
    assert all("/eu-north-1/s3/aws4_request" in s for s in signed[1:])
    assert "canary" not in str([asked.headers for asked in plain.asked])
