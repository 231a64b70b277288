"""Fields that somebody else keeps changing back: how soon we set them again. Pure.

Two writers that both insist would write for ever, as fast as the API server tells them of each
other. A field that has to be set again and again, to the same object, while the service's spec is
the one that was judged, is contested: after three times each next one waits twice as long, to
five minutes. A new wish is no contest, nor is a write that failed; ten minutes without a change
end one. Memory: one short record for each contested field, and for those set again of late.
"""

from dataclasses import dataclass, field, replace

from overspill.controller.catalog import Key
from overspill.controller.decide import Plan
from overspill.controller.drift import last_writer
from overspill.controller.facts import Facts, Object

AT_ONCE = 3  # times
FIRST_SECONDS = 2.0
LONGEST_SECONDS = 300.0
QUIET_SECONDS = 600.0


@dataclass(frozen=True)
class Contest:
    """One field that we set again."""

    wanted: int  # hash of the object that we want
    rival: str  # who changed it, as far as the object tells
    times: int
    last: float  # monotonic seconds

    @property
    def until(self) -> float:
        """When the field may be set again."""
        if self.times < AT_ONCE:
            return self.last
        return self.last + min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (self.times - AT_ONCE))

    @property
    def over(self) -> float:
        """When it is forgotten."""
        return self.last + QUIET_SECONDS


@dataclass
class Contests:
    """Those of all services."""

    _fields: dict[Key, dict[str, Contest]] = field(default_factory=dict)

    def allowed(self, key: Key, plan: Plan, now: float) -> Plan:
        """Return what of a plan may be written now.

        :param now: monotonic seconds.
        """
        known = self._fields.get(key, {})
        due = [
            (obj, path)
            for obj, path in zip(plan.apply, plan.drifted, strict=True)
            if path not in known or known[path].wanted != _digest(obj) or known[path].until <= now
        ]
        return replace(
            plan, apply=tuple(obj for obj, _ in due), drifted=tuple(path for _, path in due)
        )

    def wrote(self, key: Key, facts: Facts, obj: Object, path: str, now: float) -> None:
        """Take note of a write that the API server took.

        :param facts: as they were before.
        :param path: of the field for which it was due.
        """
        service = facts.service
        if service.status.observed_generation != service.metadata.generation:
            return  # the first writes for this spec
        fields, wanted = self._fields.setdefault(key, {}), _digest(obj)
        before = fields.get(path)
        same = before is not None and before.wanted == wanted and now < before.over
        times = before.times + 1 if before and same else 1
        live = facts.children[obj["kind"]]
        fields[path] = Contest(wanted, last_writer(live) if live else "", times, now)

    def open(self, key: Key, now: float) -> dict[str, Contest]:
        """Return the fields of a service that are contested; what is over is forgotten."""
        left = {path: c for path, c in self._fields.get(key, {}).items() if now < c.over}
        if left:
            self._fields[key] = left
        else:
            self._fields.pop(key, None)
        return {path: contest for path, contest in left.items() if contest.times >= AT_ONCE}

    def again(self, key: Key, now: float) -> float | None:
        """Return seconds until the next contested field may be set or is forgotten."""
        due = [c.until if now < c.until else c.over for c in self.open(key, now).values()]
        return min(due) - now if due else None

    def forget(self, key: Key) -> None:
        """Forget a service that is gone."""
        self._fields.pop(key, None)


def _digest(obj: Object) -> int:
    """Return a number for what we want, without the version at which we want it."""
    metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    return hash(repr({**obj, "metadata": metadata}))
