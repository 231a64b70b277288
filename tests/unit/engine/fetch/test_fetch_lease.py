"""One loader at a time, on a clock that the tests turn."""

import os
import shutil
from pathlib import Path

import pytest

from overspill.engine.fetch.lease import STALE, Lease, LeaseLost


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_one_of_two(tmp_path: Path, clock: Clock) -> None:
    first, second = (Lease(tmp_path / "work", name, clock) for name in ("one", "two"))
    assert first.acquire()
    assert not second.acquire()
    for _ in range(10):  # as long as the holder lives, nobody takes over
        clock.now += STALE - 1
        first.beat(5, 10)
        assert not second.acquire()
    assert second.note() == (5, 10)
    first.release()
    assert second.acquire()
    with pytest.raises(LeaseLost):
        first.beat(6, 10)


def test_a_killed_holder(tmp_path: Path, clock: Clock) -> None:
    first, second, third = (Lease(tmp_path / "work", n, clock) for n in ("one", "two", "three"))
    assert first.acquire()
    assert not second.acquire()
    assert not third.acquire()
    clock.now = STALE
    assert second.acquire()
    assert not third.acquire()  # what was stale was another's
    with pytest.raises(LeaseLost):  # it was asleep only
        first.beat(1, 2)
    first.release()  # not its own any more
    assert not first.acquire()
    second.beat(3, 4)


def test_a_restarted_container_goes_on_at_once(tmp_path: Path, clock: Clock) -> None:
    assert Lease(tmp_path / "work", "one", clock).acquire()
    assert Lease(tmp_path / "work", "one", clock).acquire()


def test_a_work_folder_without_a_lease(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "work").mkdir()
    lease = Lease(tmp_path / "work", "one", clock)
    assert not lease.acquire()
    clock.now = STALE
    assert not lease.acquire()  # puts a free one there
    assert lease.acquire()


def test_a_work_folder_that_goes_away_while_it_is_looked_at(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder is done and removes it: to look must not make it anew, with no lease in it."""
    work = tmp_path / "work"
    assert Lease(work, "one", clock).acquire()

    def listed(path: Path) -> list[str]:
        monkeypatch.undo()
        found = os.listdir(path)
        shutil.rmtree(path)
        return found

    monkeypatch.setattr(os, "listdir", listed)
    assert Lease(work, "two", clock).acquire()
    assert [p.name for p in work.iterdir()] == ["lease-two"]
