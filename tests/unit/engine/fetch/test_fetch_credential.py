"""Whom a credential goes to, and where a source may send a loader: real servers on the loopback."""

import base64
from pathlib import Path

import pytest
from fetch_site import COMMIT, WEIGHTS, Page, Prepare, Site, carried, loaded

from overspill.engine.errors import EngineError
from overspill.engine.fetch.errors import ModelSecretRefused, ModelSourceUnreachable
from overspill.engine.fetch.load import load

TOKEN = "hf_canary0123456789abcdef"


def test_a_token_goes_to_its_host_only(
    site: Site, other: Site, cache: Path, prepare: Prepare
) -> None:
    site.hub("org/repo", {"model.safetensors": WEIGHTS})
    path = f"/org/repo/resolve/{COMMIT}/model.safetensors"
    other.answers["/blob"] = site.answers[path]
    site.answers[path] = Page(302, b"", {"Location": other.url("/blob")})
    load(prepare("hf://org/repo", site.url(), hosts="localhost", token=TOKEN))
    assert loaded(cache) == {"model.safetensors": WEIGHTS}
    assert set(carried(site.asked)) == {f"Bearer {TOKEN}"}
    assert carried(other.asked) == [""]  # the same host, another port: another origin


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ({}, "add the key hosts: localhost"),
        ({"hosts": "huggingface.co"}, "is for huggingface.co, not for localhost"),
        ({"hosts": "*.localhost"}, "not for localhost"),
    ],
)
def test_a_token_for_another_host(
    site: Site, prepare: Prepare, secret: dict[str, str], message: str
) -> None:
    site.hub("org/repo", {"model.safetensors": WEIGHTS})
    with pytest.raises(ModelSecretRefused, match=message.replace("*", ".")):
        load(prepare("hf://org/repo", site.url(), token=TOKEN, **secret))
    assert site.asked == []


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 503])
def test_a_source_that_repeats_the_token(
    site: Site, prepare: Prepare, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    repeated = {
        "X-Error-Code": TOKEN,
        "X-Error-Message": TOKEN,
        "Location": f"https://{TOKEN.replace('_', '-')}.invalid/{TOKEN}",
        "x-amz-bucket-region": TOKEN,
    }
    body = f"<Error><Code>{TOKEN}</Code><Region>{TOKEN}</Region></Error>".encode()
    site.answers["/api/models/org/repo/revision/main?blobs=true"] = Page(status, body, repeated)
    with pytest.raises(EngineError) as raised:
        load(prepare("hf://org/repo", site.url(), hosts="localhost", token=TOKEN))
    captured = capfd.readouterr()
    shown = f"{raised.value} {captured.out} {captured.err}"
    assert [a.headers["Authorization"] for a in site.asked][:1] == [f"Bearer {TOKEN}"]
    for secret in (TOKEN, base64.b64encode(TOKEN.encode()).decode()):
        pieces = {secret[at : at + 8] for at in range(len(secret) - 7)}
        assert not [piece for piece in pieces if piece in shown]


def test_a_token_goes_over_no_plain_http(plain: Site, prepare: Prepare) -> None:
    plain.hub("org/repo", {"model.safetensors": WEIGHTS})
    with pytest.raises(ModelSecretRefused, match="over https only"):
        load(prepare("hf://org/repo", plain.url(), token=TOKEN, hosts="localhost"))
    assert plain.asked == []


def test_plain_http_without_a_token(plain: Site, cache: Path, prepare: Prepare) -> None:
    plain.hub("org/repo", {"model.safetensors": WEIGHTS})
    load(prepare("hf://org/repo", plain.url()))
    assert loaded(cache) == {"model.safetensors": WEIGHTS}


@pytest.mark.parametrize(
    "location",
    ["http://localhost:1/x", "file:///etc/passwd", "ftp://h/x", "https://u:p@h/", "", "https://h:99999/"],
)  # fmt: skip
def test_a_redirect_to_somewhere_odd(site: Site, prepare: Prepare, location: str) -> None:
    site.answers["/m.gguf"] = Page(302, b"", {"Location": location})
    with pytest.raises(ModelSourceUnreachable, match="redirects to"):
        load(prepare(site.url("/m.gguf")))


def test_a_redirect_without_end(site: Site, prepare: Prepare) -> None:
    site.answers["/m.gguf"] = Page(302, b"", {"Location": "/m.gguf"})
    with pytest.raises(ModelSourceUnreachable, match="redirects more than 5 times"):
        load(prepare(site.url("/m.gguf")))
    assert len(site.asked) == 6
