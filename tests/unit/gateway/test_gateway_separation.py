"""Tenants share no cache of an engine, and nothing of it is a client's to say (S19)."""

import re

import orjson
import pytest
from gateway_world import BODY, Upstream, World, service

from overspill.api.keys import key_secret, new_key
from overspill.gateway.call import CHAT, COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, engine_body, parse
from overspill.gateway.separation import cache_fields, salt_of

FOREIGN = {"vllm": {"cache_salt"}, "llamacpp": {"cache_prompt"}, "own": set[str]()}


@pytest.mark.parametrize("runtime", FOREIGN)
@pytest.mark.parametrize("model", ["chat", "team-a/chat"])
async def test_the_engine_is_told_whose_cache_it_is(
    gateway: World, engine: Upstream, runtime: str, model: str
) -> None:
    gateway.state.put_service(service(engine={"runtime": runtime}))
    gateway.replicas(engine)
    other, digest = new_key()
    gateway.state.keys.put(key_secret("overspill-system", "other", digest, "team-b", ("team-a/*",)))
    for key in (gateway.key, other):
        sent = {"Authorization": f"Bearer {key}"}
        status, _, _ = await gateway.post("/v1/chat/completions", BODY | {"model": model}, **sent)
        assert status == 200
    own, foreign = engine.bodies
    assert own == BODY
    assert foreign.keys() - own.keys() == FOREIGN[runtime]
    assert foreign.get("cache_salt") in (None, salt_of("team-b").decode())
    assert foreign.get("cache_prompt") in (None, False)


def test_each_tenant_has_a_salt_in_a_safe_alphabet() -> None:
    tenants = ["a", "b", "team-a", "team-b", "\u00e4", '"', ""]
    salts = {salt_of(tenant) for tenant in tenants}
    assert len(salts) == len(tenants)
    assert all(re.fullmatch(rb"[0-9a-f]{32}", salt) for salt in salts)


def test_only_where_text_is_made_and_the_body_stays_json() -> None:
    for endpoint in (EMBEDDINGS, COUNT_TOKENS):
        assert cache_fields(endpoint, "vllm", "a", "b") == b""
    assert cache_fields(COMPLETIONS, "vllm", "a", "b") == cache_fields(CHAT, "vllm", "c", "b")
    more = cache_fields(CHAT, "vllm", "a", 'b"\n')
    sent = engine_body(parse(CHAT, orjson.dumps(BODY)), "served", more)
    assert orjson.loads(sent).keys() == BODY.keys() | {"cache_salt"}
