"""Whatever a source calls its files: nothing is written outside the model's folder."""

import hashlib
import zlib
from pathlib import Path, PurePosixPath

import pytest
from fetch_site import Prepare, Site
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overspill.engine.errors import EngineError, InvalidOptions, ModelAmbiguous, ModelNotFound
from overspill.engine.fetch import hub, names, s3, source
from overspill.engine.fetch.digest import Check, Digest
from overspill.engine.fetch.errors import (
    ModelDigestMismatch,
    ModelPathUnsafe,
    ModelSourceUnreachable,
)
from overspill.engine.fetch.load import load

HOSTILE = [
    "../x.gguf", "a/../../x.gguf", "/etc/x.gguf", "//x.gguf", "a//x.gguf", "./x.gguf", "a/./x.gguf",
    "a\\..\\x.gguf", "C:\\x.gguf", "a\x00.gguf", "a\n.gguf", "a\x1b[2J.gguf", "\ud800.gguf",
    " x.gguf",
    "a /x.gguf", "x" * 256 + ".gguf", "/".join("d" * 17) + "/x.gguf", "\u202efugg.gguf",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_end_the_load(name: str) -> None:
    with pytest.raises(ModelPathUnsafe) as raised:
        names.choose({name: 1, "good.gguf": 2}, "hf://o/r")
    assert raised.value.args[0].isprintable()
    assert raised.value.args[0].isascii()


@pytest.mark.parametrize("pair", [("a.json", "a.json/b.json"), ("a/b.json", "a/b.json/c/d.json")])
def test_a_file_that_is_a_folder_too(pair: tuple[str, str]) -> None:
    with pytest.raises(ModelPathUnsafe):
        names.choose(dict.fromkeys((*pair, "m.gguf")), "hf://o/r")


part = st.sampled_from(
    ["..", ".", "", "a", "b", "~", "...", "..\\", "%2e%2e", "\x00", "\n", "con", "ü", "\u202e", " "]
)
name = st.one_of(
    st.lists(part, min_size=1, max_size=5).map("/".join).map(lambda n: n + ".gguf"),
    st.lists(part, min_size=1, max_size=5).map("/".join),
    st.text(max_size=20).map(lambda n: n + ".json"),
)


@given(st.lists(name, max_size=6))
def test_what_is_taken_stays_inside(found: list[str]) -> None:
    try:
        taken = names.choose(dict.fromkeys(found), "hf://o/r")
    except EngineError:
        return
    for each in taken:
        path = PurePosixPath("/models/key") / each
        assert str(path) == f"/models/key/{each}"
        assert ".." not in path.parts
        assert names.is_taken(each)


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(name, min_size=1, max_size=3, unique=True))
def test_nothing_outside_whatever_a_hub_lists(
    plain: Site, cache: Path, prepare: Prepare, found: list[str]
) -> None:
    plain.hub("org/repo", {**dict.fromkeys(found, b"x"), "m.gguf": b"y"})
    key = hashlib.sha256(repr(found).encode()).hexdigest()[:8]
    options = prepare("hf://org/repo", plain.url())
    object.__setattr__(options, "folder", cache / key)
    try:
        load(options)
    except EngineError as error:
        assert isinstance(error, ModelPathUnsafe | ModelAmbiguous)  # noqa: PT017
    shown = {p.name for p in cache.parent.iterdir()}
    assert shown == {"models", "secret"}
    outside = [p for p in cache.rglob("*") if not p.resolve().is_relative_to(cache)]
    assert outside == []


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        (["m.safetensors", "m.gguf", "config.json"], ["m.safetensors", "config.json"]),
        (
            ["model-1.safetensors", "consolidated.safetensors", "model.safetensors.index.json"],
            ["model-1.safetensors", "model.safetensors.index.json"],
        ),
        (["consolidated.safetensors", "params.json"], ["consolidated.safetensors", "params.json"]),
        (["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"], None),
        (["m.safetensors", "m.bin", "x.py", "x.pkl", "x.zip", ".env.json"], ["m.safetensors"]),
    ],
)  # fmt: skip
def test_which_files_are_taken(found: list[str], taken: list[str] | None) -> None:
    assert list(names.choose(dict.fromkeys(found), "hf://o/r")) == (taken or found)


def test_a_repository_of_pickles() -> None:
    with pytest.raises(ModelNotFound, match=r"only: README.md, pytorch_model.bin"):
        names.choose(dict.fromkeys(["pytorch_model.bin", "README.md"]), "hf://o/r")


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        ("https://user:hunter2hunter2@host/x.gguf", ""),
        ("https://host/x.gguf?token=hunter2hunter2", ""),
        ("https://host:99999/x.gguf", ""),
        ("http://host/x.gguf", ""),
        ("file:///etc/passwd", ""),
        ("hf://org", ""),
        ("hf://org/repo", "ftp://hub"),
        ("hf://org/repo", "https://u:hunter2hunter2@hub"),
        ("s3://bucket", ""),
        ("https://host/x.gguf", "https://other"),
    ],
)
def test_addresses_that_are_refused(uri: str, endpoint: str) -> None:
    with pytest.raises(InvalidOptions) as raised:
        source.parse(uri, endpoint)
    assert "hunter2h" not in str(raised.value) or uri in str(raised.value)


@pytest.mark.parametrize("value", ["", "abc", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 32])
def test_short_digests(value: str) -> None:
    with pytest.raises(ValueError, match="has 64 digits"):
        Digest("sha256", value)
    entry = f'{{"rfilename": "m.gguf", "size": 1, "lfs": {{"sha256": "{value}"}}}}'
    body = f'{{"sha": "c", "siblings": [{entry}]}}'.encode()
    with pytest.raises(ModelDigestMismatch, match=r"digest of 'm.gguf' is malformed"):
        hub.read_listing(source.parse("hf://o/r", ""), body)


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("sha256", hashlib.sha256(b"words\n").hexdigest()),
        ("md5", hashlib.md5(b"words\n", usedforsecurity=False).hexdigest()),
        ("git", hashlib.sha1(b"blob 6\0words\n", usedforsecurity=False).hexdigest()),
        ("crc32", f"{zlib.crc32(b'words' + bytes([10])):08x}"),
    ],
)
def test_digests(algorithm: str, value: str) -> None:
    check = Check([Digest(algorithm, value)], 6)
    check.update(b"wor")
    check.update(b"ds\n")
    assert check.wrong() is None
    check.update(b"!")
    assert check.wrong() == Digest(algorithm, value)


@given(st.binary(max_size=300))
def test_any_bytes_as_a_listing(body: bytes) -> None:
    for read in (hub.read_listing, s3.read_page):
        try:
            read(source.parse("s3://bucket/key", "https://h"), body)
        except (ModelSourceUnreachable, ModelDigestMismatch):
            continue


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"sha": "c", "siblings": [{"rfilename": "m", "size": -1}]}',
        b'{"sha": "c", "siblings": [{"rfilename": "m", "size": 1e400}]}',
        b'{"sha": "c", "siblings": {"a": 1}}',
        b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><ListBucketResult/>",
    ],
)
def test_odd_listings(body: bytes) -> None:
    with pytest.raises(ModelSourceUnreachable):
        hub.read_listing(source.parse("hf://o/r", ""), body)
    if body.startswith(b"<"):
        with pytest.raises(ModelSourceUnreachable):
            s3.read_page(source.parse("s3://bucket/key", ""), body)
