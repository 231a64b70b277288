"""Loads from real servers on the loopback: what arrives, what is resumed, what is refused."""

import hashlib
import json
import os
import shutil
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from fetch_site import COMMIT, WEIGHTS, Page, Prepare, Served, Site, loaded

from overspill.engine.errors import EngineError, ModelAmbiguous, ModelNotFound
from overspill.engine.fetch import listing, store
from overspill.engine.fetch.errors import (
    ModelDigestMismatch,
    ModelDiskFull,
    ModelForbidden,
    ModelPathUnsafe,
    ModelSourceUnreachable,
)
from overspill.engine.fetch.load import load
from overspill.engine.fetch.options import Options
from overspill.engine.fetch.web import Web

REPOSITORY = {
    ".gitattributes": b"x",
    "README.md": b"# words",
    "config.json": b'{"model_type": "small"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle" * 500,
    "modeling.py": b"import os",
    "tokenizer/tokenizer.model": b"sentencepiece" * 200,
}

SPLIT = {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}


def nothing_shown(cache: Path) -> bool:
    return not (cache / "key").exists()


def ranges(site: Site, path: str) -> list[str]:
    return [a.headers.get("Range", "") for a in site.asked if a.path == path]


def test_a_repository_of_a_hub(site: Site, cache: Path, prepare: Prepare) -> None:
    site.hub("org/repo", REPOSITORY)
    load(prepare("hf://org/repo", site.url()))
    taken = ("config.json", "model.safetensors", "tokenizer/tokenizer.model")
    assert loaded(cache) == {name: REPOSITORY[name] for name in taken}
    assert [p.name for p in cache.iterdir()] == ["key"]  # no lease, no scratch is left
    asked = len(site.asked)
    load(prepare("hf://org/repo", "https://nobody.invalid"))
    assert len(site.asked) == asked  # what is complete needs no network


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("hf://org/repo/q4.gguf", {"q4.gguf"}),
        ("hf://org/repo@v1.0/big/m-00001-of-00002.gguf", SPLIT),
        ("hf://org/repo@v1.0/big", SPLIT),
    ],
)  # fmt: skip
def test_a_path_in_a_repository(
    site: Site, cache: Path, prepare: Prepare, uri: str, names: set[str]
) -> None:
    files = {
        "q4.gguf": b"4" * 5000,
        "q8.gguf": b"8" * 9000,
        "big/m-00001-of-00002.gguf": b"1" * 2000,
        "big/m-00002-of-00002.gguf": b"2" * 2000,
    }
    site.hub("org/repo", files, "v1.0" if "@" in uri else "main")
    load(prepare(uri, site.url()))
    assert set(loaded(cache)) == names


def test_a_repository_of_many_quantisations(site: Site, prepare: Prepare) -> None:
    site.hub("org/repo", {"q4.gguf": b"4" * 5000, "q8.gguf": b"8" * 9000})
    with pytest.raises(ModelAmbiguous, match=r"holds 2 models .*name one in spec.model.uri"):
        load(prepare("hf://org/repo", site.url()))


def test_one_file_by_https(site: Site, cache: Path, prepare: Prepare) -> None:
    site.answers["/files/small.gguf"] = Served(WEIGHTS, '"v1"')
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    load(prepare(site.url("/files/small.gguf"), sha256=sha256))
    assert loaded(cache) == {"small.gguf": WEIGHTS}


@pytest.mark.parametrize("where", ["hub", "https"])
def test_goes_on_where_the_connection_broke(
    site: Site, cache: Path, prepare: Prepare, where: str
) -> None:
    if where == "hub":
        site.hub("org/repo", {"model.safetensors": WEIGHTS})
        path, options = (
            f"/org/repo/resolve/{COMMIT}/model.safetensors",
            prepare("hf://org/repo", site.url()),
        )
    else:
        path, options = "/m.gguf", prepare(site.url("/m.gguf"))
        site.answers[path] = Served(WEIGHTS, '"v1"')
    site.answers[path].cut = [100_000, 50_000]  # type: ignore[union-attr]
    load(options)
    assert list(loaded(cache).values()) == [WEIGHTS]
    assert [r for r in ranges(site, path) if r != "bytes=0-0"] == [
        "",
        "bytes=100000-",
        "bytes=150000-",
    ]


def test_a_server_without_ranges_begins_again(site: Site, cache: Path, prepare: Prepare) -> None:
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"', ranges=False, cut=[0, 100_000])
    load(prepare(site.url("/m.gguf")))
    assert loaded(cache) == {"m.gguf": WEIGHTS}


def interrupt(site: Site, prepare: Prepare, options: Any, path: str, at: int) -> None:
    """End a load after `at` bytes, as a source does that goes away."""
    file = site.answers[path]
    assert isinstance(file, Served)
    file.cut = [at] + [0] * 20
    with pytest.raises(ModelSourceUnreachable, match="gave up after"):
        load(options)
    file.cut = []
    site.asked.clear()


def test_a_later_load_goes_on(site: Site, cache: Path, prepare: Prepare) -> None:
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"')
    options = prepare(site.url("/m.gguf"))
    interrupt(site, prepare, options, "/m.gguf", 200_000)
    assert nothing_shown(cache)
    load(options)
    assert loaded(cache) == {"m.gguf": WEIGHTS}
    assert ranges(site, "/m.gguf") == ["bytes=0-0", "bytes=200000-"]
    assert site.asked[-1].headers["If-Range"] == '"v1"'


@pytest.mark.parametrize("etags", [('"v1"', '"v2"'), ("", "")])
def test_a_changed_source_begins_again(
    site: Site, cache: Path, prepare: Prepare, etags: tuple[str, str]
) -> None:
    site.answers["/m.gguf"] = Served(os.urandom(len(WEIGHTS)), etags[0])
    options = prepare(site.url("/m.gguf"))
    interrupt(site, prepare, options, "/m.gguf", 200_000)
    site.answers["/m.gguf"] = Served(WEIGHTS, etags[1])
    load(options)
    assert loaded(cache) == {"m.gguf": WEIGHTS}
    assert ranges(site, "/m.gguf") == ["bytes=0-0", ""]


def test_a_source_that_changes_while_it_is_loaded(
    site: Site, cache: Path, prepare: Prepare
) -> None:
    """The connection breaks, and what comes then is another version."""
    old = Served(os.urandom(len(WEIGHTS)), '"v1"', cut=[100_000])
    site.answers["/m.gguf"] = old
    changed = threading.Event()
    request = Web.request

    def watch(self: Web, method: str, url: str, headers: Any = None) -> Any:
        if "If-Range" in (headers or {}) and not changed.is_set():
            changed.set()
            site.answers["/m.gguf"] = Served(WEIGHTS, '"v2"')
        return request(self, method, url, headers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Web, "request", watch)
        load(prepare(site.url("/m.gguf")))
    assert changed.is_set()
    assert loaded(cache) == {"m.gguf": WEIGHTS}


@pytest.mark.parametrize("where", ["hub", "git", "sha256"])
def test_a_wrong_byte(site: Site, cache: Path, prepare: Prepare, where: str) -> None:
    bad = WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])
    config = b'{"a": 1}'
    if where == "sha256":
        options = prepare(site.url("/m.gguf"), sha256=hashlib.sha256(WEIGHTS).hexdigest())
        site.answers["/m.gguf"] = Served(bad, '"v1"')
    else:
        options = prepare("hf://org/repo", site.url())
        site.hub("org/repo", {"model.safetensors": WEIGHTS, "config.json": config})
        name = "model.safetensors" if where == "hub" else "config.json"
        site.answers[f"/org/repo/resolve/{COMMIT}/{name}"] = Served(
            bad if where == "hub" else b'{"a": 2}'
        )
    with pytest.raises(ModelDigestMismatch, match=r"is not what its (sha256|git) digest says"):
        load(options)
    assert nothing_shown(cache)
    left = [p.read_bytes() for p in cache.rglob("*") if p.is_file()]
    assert bad not in left


def test_what_an_earlier_load_left_is_verified_too(
    site: Site, cache: Path, prepare: Prepare
) -> None:
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"')
    options = prepare(site.url("/m.gguf"), sha256=hashlib.sha256(WEIGHTS).hexdigest())
    interrupt(site, prepare, options, "/m.gguf", 200_000)
    (part,) = (p for p in (cache / ".key.work" / "parts").iterdir() if not p.suffix)
    with part.open("r+b") as stream:
        stream.write(bytes([WEIGHTS[0] ^ 1]))
    load(options)
    assert loaded(cache) == {"m.gguf": WEIGHTS}
    assert ranges(site, "/m.gguf") == ["bytes=0-0", "bytes=200000-", ""]


@pytest.mark.parametrize(
    ("status", "headers", "fault"),
    [
        (404, {}, ModelNotFound),
        (401, {"X-Error-Code": "GatedRepo"}, ModelForbidden),
        (403, {}, ModelForbidden),
        (400, {}, ModelSourceUnreachable),
        (200, {}, ModelSourceUnreachable),  # no hub
        (503, {"Retry-After": "0"}, ModelSourceUnreachable),
    ],
)
def test_refusals(
    site: Site, prepare: Prepare, status: int, headers: dict[str, str], fault: type[EngineError]
) -> None:
    path = "/api/models/org/repo/revision/main?blobs=true"
    site.answers[path] = Page(status, b"<html>secret words</html>", headers)
    with pytest.raises(fault) as raised:
        load(prepare("hf://org/repo", site.url()))
    assert "secret words" not in str(raised.value)
    assert len(site.asked) == (listing.TRIES if status == 503 else 1)


def test_a_busy_source_is_asked_again(site: Site, cache: Path, prepare: Prepare) -> None:
    site.hub("org/repo", {"model.safetensors": WEIGHTS})
    path = "/api/models/org/repo/revision/main?blobs=true"
    good = site.answers[path]
    assert isinstance(good, Page)
    site.answers[path] = [Page(503), Page(429, b"", {"Retry-After": "0"}), good]
    load(prepare("hf://org/repo", site.url()))
    assert loaded(cache) == {"model.safetensors": WEIGHTS}


def test_nobody_there(prepare: Prepare) -> None:
    with pytest.raises(ModelSourceUnreachable, match="gave up after 6 tries: localhost:9"):
        load(prepare("hf://org/repo", "https://localhost:9"))


def test_a_certificate_of_nobody_we_know(site: Site, prepare: Prepare) -> None:
    options = prepare(site.url("/m.gguf"))
    (options.secret / "ca.crt").unlink()
    with pytest.raises(ModelSourceUnreachable, match=r"certificate of localhost.* is not trusted"):
        load(options)


def test_no_room(
    site: Site, cache: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"')
    monkeypatch.setattr(store, "SPARE", 10**18)
    with pytest.raises(ModelDiskFull, match="give it more room"):
        load(prepare(site.url("/m.gguf")))
    assert ranges(site, "/m.gguf") == ["bytes=0-0"]  # asked how large it is, and no more


def test_a_file_of_unknown_size_leaves_room(
    site: Site, cache: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volume has 100,000 bytes beyond what a load leaves free; the file has 300,000."""
    real = shutil.disk_usage(cache)
    used = store.SPARE + 100_000

    def usage(where: Any) -> Any:
        there = sum(p.stat().st_blocks * 512 for p in cache.rglob("*") if p.is_file())
        return real._replace(free=used - there)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"', ranges=False, announced=False)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    with pytest.raises(ModelDiskFull, match=r"does not say how long .* give it more"):
        load(prepare(site.url("/m.gguf"), sha256=digest))
    assert nothing_shown(cache)
    assert max(p.stat().st_size for p in cache.rglob("*") if p.is_file()) < 1024
    used += 10**6
    load(prepare(site.url("/m.gguf"), sha256=digest))
    assert loaded(cache) == {"m.gguf": WEIGHTS}


@pytest.mark.parametrize("announced", [True, False])
def test_more_than_was_announced(
    site: Site, cache: Path, prepare: Prepare, announced: bool
) -> None:
    """A hub that lists 10 bytes and sends 300,000 fills no disk."""
    site.hub("org/repo", {"model.safetensors": WEIGHTS})
    file = site.answers[f"/org/repo/resolve/{COMMIT}/model.safetensors"]
    assert isinstance(file, Served)
    file.announced = announced
    path = "/api/models/org/repo/revision/main?blobs=true"
    page = site.answers[path]
    assert isinstance(page, Page)
    page.body = page.body.replace(str(len(WEIGHTS)).encode(), b"10")
    with pytest.raises(ModelSourceUnreachable, match="changes faster"):
        load(prepare("hf://org/repo", site.url()))
    assert nothing_shown(cache)
    assert max(p.stat().st_size for p in cache.rglob("*") if p.is_file()) < 1024


@pytest.mark.parametrize("planted", ["key", ".key.work", ".key.work/files", ".key.work/parts"])
def test_links_on_the_volume(
    site: Site, cache: Path, prepare: Prepare, tmp_path: Path, planted: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if "/" in planted:
        (cache / ".key.work").mkdir()
        (cache / ".key.work" / "lease-free").touch()
    if planted == ".key.work":
        (outside / "lease-free").touch()
    (cache / planted).symlink_to(outside)
    before = sorted(outside.iterdir())
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"')
    with pytest.raises(ModelPathUnsafe, match="is no folder"):
        load(prepare(site.url("/m.gguf")))
    assert sorted(outside.iterdir()) == before


def test_a_link_where_a_part_goes(
    site: Site, cache: Path, prepare: Prepare, tmp_path: Path
) -> None:
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"')
    options = prepare(site.url("/m.gguf"))
    interrupt(site, prepare, options, "/m.gguf", 100_000)
    (part,) = (p for p in (cache / ".key.work" / "parts").iterdir() if not p.suffix)
    victim = tmp_path / "victim"
    victim.write_bytes(WEIGHTS[:100_000])
    part.unlink()
    part.symlink_to(victim)
    with pytest.raises(ModelPathUnsafe, match="is a link"):
        load(options)
    assert victim.stat().st_size == 100_000


def test_what_is_incomplete_is_replaced(site: Site, cache: Path, prepare: Prepare) -> None:
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"')
    options = prepare(site.url("/m.gguf"))
    load(options)
    (cache / "key" / "m.gguf").write_bytes(b"half")
    load(options)
    assert loaded(cache) == {"m.gguf": WEIGHTS}
    assert [p.name for p in cache.iterdir()] == ["key"]


def test_what_killed_loaders_put_aside_is_removed(
    site: Site, cache: Path, prepare: Prepare, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"')
    for _ in "new", "there":
        for name in ".key.old-one", ".key.old-two":
            (cache / name / "files").mkdir(parents=True)
            (cache / name / "files" / "m.gguf").write_bytes(b"half")
        (cache / ".key.old-three").symlink_to(outside)
        (cache / ".key2.old-one").mkdir(exist_ok=True)  # of another model
        load(prepare(site.url("/m.gguf")))
        assert loaded(cache) == {"m.gguf": WEIGHTS}
        assert {p.name for p in cache.iterdir()} == {"key", ".key2.old-one"}
    assert (outside / "kept").exists()


def test_two_loaders_of_one_volume_load_once(site: Site, cache: Path, prepare: Prepare) -> None:
    pace = threading.Semaphore(0)
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"', pace=pace)
    done: list[str] = []

    def run(options: Options) -> None:
        load(options)
        done.append(options.holder)

    every = [prepare(site.url("/m.gguf"), holder=name) for name in ("one", "two", "three")]
    loaders = [threading.Thread(target=run, args=(options,)) for options in every]
    for loader in loaders:
        loader.start()
    for _ in range(8):
        pace.release()
    for loader in loaders:
        loader.join(timeout=10)
    assert sorted(done) == ["one", "three", "two"]
    assert ranges(site, "/m.gguf") == ["bytes=0-0", ""]
    assert loaded(cache) == {"m.gguf": WEIGHTS}
    assert [p.name for p in cache.iterdir()] == ["key"]


def test_progress_while_it_loads(
    site: Site, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = threading.Semaphore(2)
    site.answers["/m.gguf"] = Served(WEIGHTS, '"v1"', pace=pace)
    options = prepare(site.url("/m.gguf"))
    ports: list[int] = []
    from overspill.engine.fetch import load as module

    serve = module.serve

    def noted(port: int, meter: Any) -> Any:
        context = serve(port, meter)

        class Noting:
            def __enter__(self) -> int:
                ports.append(context.__enter__())
                return ports[0]

            def __exit__(self, *error: Any) -> None:
                context.__exit__(*error)

        return Noting()

    monkeypatch.setattr(module, "serve", noted)
    loader = threading.Thread(target=load, args=(options,))
    loader.start()
    said: dict[str, Any] = {"bytes": 0}
    deadline = time.monotonic() + 10
    while said["bytes"] < 2 << 16 and time.monotonic() < deadline:
        time.sleep(0.01)
        if ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/progress") as page:
                said = json.load(page)
    for _ in range(8):
        pace.release()
    loader.join(timeout=10)
    assert said["bytes"] == 2 << 16
    assert said["total"] == len(WEIGHTS)
    assert said["seconds"] >= 0
    assert set(said) == {"bytes", "total", "seconds", "left"}
