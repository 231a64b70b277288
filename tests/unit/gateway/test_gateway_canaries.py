"""The canaries of all tests of the gateway sing when a piece of a secret is seen."""

import base64

import pytest
import structlog
from canaries import found_in
from gateway_world import BODY, Upstream, World

SECRET = "sk-2f9d1c84e07ab35"
COVER = [b"key ", b"a key ", b" key: "]


@pytest.mark.parametrize("cover", COVER)
def test_a_piece_is_found_however_it_is_written(cover: bytes) -> None:
    secret = SECRET.encode()
    for text in (secret, secret[-8:], secret[3:11], b"***" + secret[5:]):
        assert found_in(cover + text, [SECRET])
        assert len(text) < 11 or found_in(base64.b64encode(cover + text), [SECRET])
    assert not found_in(cover + secret[:7] + b"...", [SECRET])


async def test_a_world_in_which_a_key_is_logged_fails(gateway: World) -> None:
    structlog.get_logger().info("oh", headers={"authorization": gateway.key[:-5]})
    assert await gateway.leaks()
    gateway.seen.truncate(0)


async def test_a_world_in_which_a_client_is_told_a_key_fails(
    gateway: World, engine: Upstream
) -> None:
    engine.words = [gateway.key[4:15]]
    await gateway.post("/v1/chat/completions", BODY)
    assert await gateway.leaks()
    gateway.seen.truncate(0)
