"""Deny by default; a name means a service of the key's tenant, then the oldest it covers."""

from datetime import UTC, datetime
from typing import Any

import pytest
from gateway_world import encoded, service

from overspill.api.keys import (
    ClientKey,
    InvalidKey,
    digest,
    key_secret,
    new_key,
    parse_key,
    rotated,
)
from overspill.gateway.app import _may_leave, _read_headers
from overspill.gateway.errors import ApiError
from overspill.gateway.keys import KeyIndex, authenticate
from overspill.gateway.resolve import Resolver
from overspill.gateway.state import State

KEY, DIGEST = new_key()
SECRET = key_secret("overspill-system", "ci", DIGEST, "team-a")


def index(*secrets: dict[str, Any]) -> KeyIndex:
    made = KeyIndex()
    made.replace(secrets)
    return made


def test_a_key_says_who_goes_first() -> None:
    assert (parse_key(SECRET).priority, parse_key(SECRET).weight) == (0, 1)
    assert not SECRET["data"].keys() & {"priority", "weight"}, "an older gateway would refuse it"
    secret = key_secret("overspill-system", "ci", DIGEST, "team-a", priority=-3, weight=20)
    assert (parse_key(secret).priority, parse_key(secret).weight) == (-3, 20)


@pytest.mark.parametrize(
    "field",
    [
        {"priority": "101"},
        {"priority": "high"},
        {"weight": "0"},
        {"weight": "1.5"},
        {"weight": "-1"},
        {"requestsPerMinute": "0"},
        {"tokensPerMinute": "1e5"},
    ],
    ids=str,
)
def test_a_key_with_a_wrong_number_opens_nothing(field: dict[str, str]) -> None:
    secret = SECRET | {"data": SECRET["data"] | encoded(**field)}
    with pytest.raises(InvalidKey, match=rf"{next(iter(field))}: must be a whole number from"):
        parse_key(secret)


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (f"Bearer {KEY}", ""),
        (f"bearer  {KEY} ", ""),
        ("", KEY),
        ("Basic dXNlcjpwYXNz", KEY),
    ],
    ids=["bearer", "spaces", "x-api-key", "beside basic"],
)
def test_a_known_key_opens(authorization: str, api_key: str) -> None:
    assert authenticate(index(SECRET), authorization.encode(), api_key.encode()).id == "ci"


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (b"", b""),
        (b"Bearer", b""),
        (b"Bearer ", b""),
        (KEY.encode(), b""),
        (b"Basic " + KEY.encode(), b""),
        (b"Bearer " + KEY[:-1].encode(), b""),
        (b"Bearer " + KEY[:20].encode(), b""),
        (b"Bearer " + KEY.encode() + b"x", b""),
        (b"Bearer " + DIGEST.encode(), b""),
        (b"Bearer osk-other", KEY.encode()),
        (b"Bearer ' OR 1=1 --", b""),
        (b"Bearer \x00\xff\xfe", b""),
        (b"Bearer " + b"x" * 1_000_000, b""),
        (b"", b"*"),
    ],
    ids=[
        "none",
        "scheme",
        "scheme and space",
        "no scheme",
        "basic",
        "cut",
        "cut short",
        "longer",
        "digest",
        "wrong beside right",
        "injection",
        "no text",
        "huge",
        "star",
    ],
)
def test_everything_else_is_the_same_401(authorization: bytes, api_key: bytes) -> None:
    with pytest.raises(ApiError) as info:
        authenticate(index(SECRET), authorization, api_key)
    assert (info.value.status, info.value.code) == (401, "invalid_api_key")
    assert KEY not in info.value.message


def test_a_revoked_key_is_dead_and_a_changed_one_follows() -> None:
    keys = index(SECRET)
    keys.remove(SECRET)
    assert keys.find(KEY.encode()) is None
    other, digest = new_key()
    keys.put(SECRET)
    keys.put(key_secret("overspill-system", "ci", digest, "team-a"))
    assert keys.find(KEY.encode()) is None
    assert keys.find(other.encode()) is not None


def test_keys_that_begin_alike_open_nothing_of_each_other() -> None:
    """A proxy that remembers a part of a key opens one client's account to another."""
    keys = KeyIndex()
    known = {f"{KEY}{n}".encode(): f"key-{n}" for n in range(50)}
    secrets = [
        key_secret("overspill-system", name, digest(key.decode()), "team-a")
        for key, name in known.items()
    ]
    keys.replace(secrets)
    tried = (f"{KEY[:-1]}{n}".encode() for n in range(100_000))
    found = {key.id for token in (*known, *tried) if (key := keys.find(token)) is not None}
    assert found == set(known.values())
    assert all(keys.find(key).id == name for key, name in known.items())  # type: ignore[union-attr]


def test_a_rotated_key_opens_the_same_until_the_overlap_ends() -> None:
    new, new_digest = new_key()
    secret = key_secret("overspill-system", "ci", DIGEST, "team-a", requests_per_minute=5)
    end, now = datetime(2026, 12, 1, 9, tzinfo=UTC), 0.0
    keys = KeyIndex(lambda: now)
    keys.put(rotated(secret, new_digest, end))
    first, second = keys.find(KEY.encode()), keys.find(new.encode())
    assert first is second is not None
    assert (first.id, first.requests_per_minute) == ("ci", 5)
    now = end.timestamp()
    assert keys.find(KEY.encode()) is None
    assert keys.find(new.encode()) is not None
    now = 0.0
    third, third_digest = new_key()
    keys.put(rotated(rotated(secret, new_digest, end), third_digest, None))
    assert [keys.find(k.encode()) is not None for k in (KEY, new, third)] == [False, False, True]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"previousSha256": DIGEST}, "previousUntil: must be a time"),
        ({"previousSha256": DIGEST, "previousUntil": "2026-12-01"}, "previousUntil: must be"),
        ({"previousUntil": "2026-12-01T09:00:00Z"}, "previousSha256: must be"),
    ],
)
def test_half_a_rotation_opens_nothing(field: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidKey, match=said):
        parse_key(SECRET | {"data": SECRET["data"] | encoded(**field)})


@pytest.mark.parametrize(
    "data",
    [
        encoded(sha256=DIGEST, tenant="team-a", tokensPerHour="20"),  # a limit we do not know
        encoded(sha256="short", tenant="team-a"),
        encoded(sha256=DIGEST),
        encoded(sha256=DIGEST, tenant="team-a", services="*"),
        {},
    ],
)
def test_a_secret_that_is_no_sound_key_opens_nothing(data: dict[str, str]) -> None:
    keys = index(SECRET)
    keys.put({"metadata": {"name": "ci"}, "data": data})
    assert keys.find(KEY.encode()) is None


def client(tenant: str = "team-a", *services: str) -> ClientKey:
    return ClientKey("ci", "", tenant, services or (f"{tenant}/*",))


def state() -> State:
    made = State(lambda: 0.0, 10)
    served = {"model": {"uri": "oci://r/m", "servedName": "qwen"}}
    for name, namespace, created, spec in [
        ("chat", "team-a", "2026-11-02T00:00:00Z", {}),
        ("new", "team-a", "2026-11-03T00:00:00Z", served),
        ("old", "team-a", "2026-11-01T00:00:00Z", served),
        ("oldest", "team-b", "2026-10-01T00:00:00Z", served),
    ]:
        made.put_service(service(name, namespace, created=created, **spec))
    return made


BOTH = ("team-a/*", "team-b/*")
NAMES = [
    # key, name, service (None: 404)
    (client(), "chat", "team-a/chat"),
    (client(), "team-a/chat", "team-a/chat"),
    (client(), "qwen", "team-a/old"),
    (client(), "team-a/new", "team-a/new"),
    (client(), "new", None),
    (client(), "team-b/oldest", None),
    (client(), "nothing", None),
    (client(), "team-a/", None),
    (client(), "/chat", None),
    (client(), "a/b/c", None),
    (client("team-b"), "qwen", "team-b/oldest"),
    (client("team-b"), "chat", None),
    (client("team-a", *BOTH), "qwen", "team-a/old"),
    (client("team-b", *BOTH), "qwen", "team-b/oldest"),
    (client("team-c", *BOTH), "qwen", "team-b/oldest"),
    (client("team-b", *BOTH), "chat", "team-a/chat"),
    (client("team-a", "team-a/new"), "qwen", "team-a/new"),
    (client("team-a", "team-a/n*"), "chat", None),
]


@pytest.mark.parametrize(("key", "name", "expected"), NAMES)
def test_names(key: ClientKey, name: str, expected: str | None) -> None:
    resolver = Resolver(state())
    for _ in range(2):  # the second answer comes from memory
        try:
            found = resolver.resolve(key, name).key
        except ApiError as error:
            found, status = None, (error.status, error.code)
            assert status == (404, "model_not_found")
        assert found == expected


def test_changes_are_seen_at_once() -> None:
    known = state()
    resolver = Resolver(known)
    assert resolver.resolve(client(), "qwen").key == "team-a/old"
    known.remove_service("team-a/old")
    assert resolver.resolve(client(), "qwen").key == "team-a/new"


def test_the_list_holds_each_name_that_works_once() -> None:
    resolver = Resolver(state())
    listed = [name for name, _ in resolver.visible(client("team-a", *BOTH))]
    assert sorted(listed) == ["chat", "qwen", "team-a/new", "team-b/oldest"]
    assert resolver.visible(client("team-c")) == []


def test_one_namespaces_list_leaves_the_others_alone() -> None:
    known = state()
    known.replace_services([], "team-a")
    assert set(known.services) == {"team-b/oldest"}
    known.replace_services([])
    assert known.services == {}


def test_a_service_that_does_not_parse_keeps_its_last_good_form() -> None:
    known = state()
    known.put_service(service("chat", model={"uri": "ftp://x"}))
    assert known.services["team-a/chat"].resource.spec.model.uri == "oci://registry/model"


@pytest.mark.parametrize(
    ("sent", "may_leave"),
    [
        ([], True),
        ([b"allowed"], True),
        ([b"Never "], False),
        ([b"never", b"allowed"], False),
        ([b"allowed", b"never"], False),
        ([b"allowed, never"], False),
    ],
)
def test_of_several_data_policies_the_strictest_holds(sent: list[bytes], may_leave: bool) -> None:
    headers = _read_headers((b"x-overspill-data-policy", value) for value in sent)
    assert _may_leave(headers) is may_leave


def test_a_data_policy_that_is_none_is_refused() -> None:
    with pytest.raises(ApiError):
        _may_leave(_read_headers([(b"x-overspill-data-policy", b"never;")]))
