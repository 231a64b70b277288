import base64
import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.keys import InvalidKey, digest, key_secret, new_key, parse_key

DIGEST = digest("osk-test")


def secret(**fields: str) -> dict[str, Any]:
    data = {k: base64.b64encode(v.encode()).decode() for k, v in fields.items()}
    return {"metadata": {"name": "key-ci"}, "data": data}


def test_a_new_key_round_trips_without_being_stored() -> None:
    key, key_digest = new_key()
    made = key_secret("overspill-system", "key-ci", key_digest, "team-a", ("team-a/*", "b/chat"))
    read = parse_key(made)
    assert (read.id, read.digest, read.tenant) == ("key-ci", digest(key), "team-a")
    assert read.services == ("team-a/*", "b/chat")
    assert key not in str(made)


def test_a_budget_is_read_to_the_nano_dollar_and_none_is_no_limit() -> None:
    made = key_secret("overspill-system", "key-ci", DIGEST, "team-a", budget_per_day="0.50")
    assert parse_key(made).budget_per_day == 500_000_000
    assert parse_key(key_secret("s", "key-ci", DIGEST, "team-a")).budget_per_day is None


def test_keys_differ() -> None:
    assert len({new_key() for _ in range(100)}) == 100


def test_the_default_is_all_services_of_the_tenant() -> None:
    key = parse_key(secret(sha256=DIGEST, tenant="team-a"))
    assert key.allows("team-a", "chat")
    assert not key.allows("team-ab", "chat")
    assert not key.allows("team-b", "chat")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "sha256"),
        ({"sha256": DIGEST}, "tenant"),
        ({"sha256": DIGEST.upper(), "tenant": "a"}, "sha256"),
        ({"sha256": DIGEST[:-1], "tenant": "a"}, "sha256"),
        ({"sha256": DIGEST, "tenant": "A b"}, "tenant"),
        ({"sha256": DIGEST, "tenant": "a" * 64}, "tenant"),
        ({"sha256": DIGEST, "tenant": "a", "services": "chat"}, "services"),
        ({"sha256": DIGEST, "tenant": "a", "services": "a/b/c"}, "services"),
        ({"sha256": DIGEST, "tenant": "a", "services": "a/b,"}, "services"),
        ({"sha256": DIGEST, "tenant": "a", "budgetPerDay": "$20"}, "budgetPerDay"),
        ({"sha256": DIGEST, "tenant": "a", "budgetPerDay": "-1"}, "budgetPerDay"),
        ({"sha256": DIGEST, "tenant": "a", "tokensPerHour": "20"}, "tokensPerHour"),
    ],
)
def test_a_secret_that_is_not_understood_opens_nothing(fields: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidKey, match=named):
        parse_key(secret(**fields))


def test_a_value_that_is_not_base64_is_named() -> None:
    with pytest.raises(InvalidKey, match="sha256"):
        parse_key({"metadata": {"name": "x"}, "data": {"sha256": "%%%"}})


NAMES = st.text("ab-", min_size=1, max_size=6).filter(lambda t: t[0] != "-")
PATTERNS = st.text("ab*-", min_size=1, max_size=6).filter(lambda t: t[0] != "-")


@given(PATTERNS, PATTERNS, NAMES, NAMES)
def test_stars_match_as_in_a_shell_and_never_across_the_slash(
    space: str, pattern: str, namespace: str, name: str
) -> None:
    key = parse_key(secret(sha256=DIGEST, tenant="t", services=f"{space}/{pattern}"))
    expected = fnmatch.fnmatchcase(namespace, space) and fnmatch.fnmatchcase(name, pattern)
    assert key.allows(namespace, name) == expected
