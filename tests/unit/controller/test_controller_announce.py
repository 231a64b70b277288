"""Events have a limit for each object, as client-go's have."""

from typing import Any

from overspill.cluster import Kind
from overspill.controller.announce import BURST, REFILL_SECONDS, Allowance, Announcer

METADATA = {"name": "chat", "namespace": "team-a", "resourceVersion": "1"}


def object_of(uid: str) -> dict[str, Any]:
    return {"kind": "InferenceService", "metadata": METADATA | {"uid": uid}}


class Events:
    """Takes events as an API server does."""

    def __init__(self) -> None:
        self.of: list[str] = []

    async def create(self, kind: Kind, event: dict[str, Any], *, manager: str) -> None:
        assert kind.kind == "Event"
        self.of.append(event["involvedObject"]["uid"])


async def test_a_service_that_flaps_takes_no_event_from_another() -> None:
    events: Any = Events()
    announcer = Announcer(events, "me")
    for _ in range(4 * BURST):
        await announcer.announce(object_of("flaps"), "Warning", "CrashLoop", "again")
    await announcer.announce(object_of("calm"), "Normal", "Scaled", "0 → 1")
    assert events.of == ["flaps"] * BURST + ["calm"]


def test_one_more_comes_every_five_minutes() -> None:
    allowance = Allowance()
    taken = [now for now in range(0, 3600, 10) if allowance.take("a", float(now))]
    assert taken[:BURST] == list(range(0, 10 * BURST, 10))
    assert len(taken) == BURST + 3600 // int(REFILL_SECONDS) - 1


def test_an_object_without_events_is_forgotten() -> None:
    allowance = Allowance()
    for number in range(1000):
        assert allowance.take(str(number), 0.0)
    allowance.take("last", REFILL_SECONDS)
    assert list(allowance._spent) == ["last"]
