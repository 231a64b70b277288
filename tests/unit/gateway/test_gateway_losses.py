"""Which requests have lost a replica: counted once a replica, forgotten, bounded."""

import orjson
import pytest

from overspill.gateway import losses
from overspill.gateway.call import CHAT, COMPLETIONS, Call, parse
from overspill.gateway.losses import REMEMBERED_SECONDS, Losses, fingerprint_of

A, B, C = [("10.0.0.1", 8000), ("10.0.0.2", 8000), ("10.0.0.3", 8000)]


def call(**fields: object) -> Call:
    said = {"messages": [{"role": "user", "content": "x"}]}
    return parse(CHAT, orjson.dumps({"model": "m"} | said | fields))


def test_equal_requests_at_one_replica_have_lost_it_once_and_each_later_one_again() -> None:
    lost = Losses()
    assert not lost
    assert [lost.note(b"x", A, sent, 10.0) for sent in (1.0, 2.0, 9.9)] == [1, 1, 1]
    assert lost.note(b"x", B, 3.0, 11.0) == 2
    assert lost.note(b"x", A, 12.0, 13.0) == 3, "the container has come up again"
    assert (lost.of(b"x", 14.0), lost.of(b"y", 14.0)) == (3, 0)


def test_an_answer_acquits_and_time_heals() -> None:
    lost = Losses()
    lost.note(b"x", A, 0.0, 1.0)
    lost.acquit(b"x")
    assert not lost
    lost.note(b"x", A, 1.0, 2.0)
    assert lost.of(b"x", 2.0 + REMEMBERED_SECONDS) == 1
    assert lost.of(b"x", 2.1 + REMEMBERED_SECONDS) == 0
    assert lost.note(b"x", A, 1.5, 3.0 + REMEMBERED_SECONDS) == 1


def test_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "KEPT", 2)
    lost = Losses()
    for number, place in enumerate((A, B, C)):
        lost.note(bytes([number % 2]), place, number, number + 0.5)
    lost.note(b"other", A, 4.0, 5.0)
    assert [lost.of(f, 5.0) for f in (b"\0", b"\1", b"other")] == [2, 0, 1]


def test_the_fingerprint_is_of_what_the_engine_reads_and_of_who_asks() -> None:
    def of(made: Call, tenant: str = "a", service: str = "a/chat") -> bytes:
        return fingerprint_of(made, tenant, service)

    assert of(call()) == of(call(model="other/name"))
    said = orjson.dumps({"model": "m", "prompt": "x"})
    others = [
        of(call(seed=1)),
        of(call(), "b"),
        of(call(), "a", "a/x"),
        of(parse(COMPLETIONS, said)),
    ]
    assert len({of(call()), *others}) == 5
