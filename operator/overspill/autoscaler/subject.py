"""What the autoscaler remembers of one service."""

from collections import deque
from dataclasses import dataclass, field, replace

from overspill.api.status import MAX_DECISIONS
from overspill.autoscaler.economics import Costs
from overspill.autoscaler.health import ScalingHealth
from overspill.autoscaler.offers import Offer
from overspill.autoscaler.policy import Decision, PolicyState
from overspill.autoscaler.pool import Member, Stake, Want
from overspill.autoscaler.sharing import Grant
from overspill.autoscaler.signals import Replicas, Rules
from overspill.ledger.prices import Rates
from overspill.prometheus.queries import OwnMetrics


@dataclass
class Subject:
    """One service."""

    rules: Rules
    replicas: Replicas
    devices: int  # accelerators per replica
    hourly: float  # US dollars of one for an hour
    seen_at: float  # seconds since the epoch
    own: OwnMetrics | None = None  # of an engine that is not ours
    offer: Offer | None = None  # None: the objective alone decides
    cloud: Rates | None = None  # of the first provider that has a price
    stake: Stake | None = None  # None: its replicas are not shared out
    want: Want | None = None  # by the last decision
    grant: Grant | None = None  # where a full pool has less than it wants
    stale: bool = False  # not observed since this process leads again
    known: bool = False  # to Prometheus, at some time since this process leads
    decisions: deque[Decision] = field(default_factory=lambda: deque(maxlen=MAX_DECISIONS))
    state: PolicyState | None = None
    health: ScalingHealth | None = None  # as the controller was told last
    writing: bool = False
    settled: tuple[int, str] | None = None  # (count, resourceVersion) that needs no further write
    failures: int = 0  # of writes, in a row
    retry_at: float = 0.0
    _priced: tuple[Rules, Rules] | None = None  # without and with what replicas and cloud cost

    @property
    def desired(self) -> int:
        """Replicas wanted: as somebody has set them, else as decided here."""
        return self.decided if self.rules.set_count is None else self.rules.set_count

    @property
    def decided(self) -> int:
        """Replicas by the last decision; before the first, what the cluster has or the minimum."""
        if self.state is not None:
            return self.state.replicas
        existing = self.replicas.desired
        return self.rules.min_replicas if existing is None else existing

    def priced(self, costs: Costs | None) -> Rules:
        """Return what the user asked for, with what decides between a replica and the cloud.

        Prices change far less often than is looked: the rules are made anew only then.
        """
        if costs is None:
            return self.rules
        asked, priced = self._priced or (None, self.rules)
        if asked is not self.rules or priced.costs != costs:
            priced = replace(self.rules, costs=costs)
            self._priced = self.rules, priced
        return priced

    def member(self, key: str) -> Member | None:
        """Return what it is in its pool; None where it has no part, or nobody has looked yet."""
        if self.stake is None or self.want is None or self.stale:
            return None
        pods = self.replicas
        return Member(
            key,
            self.stake,
            self.want,
            self.rules.min_replicas,
            self.decided,
            pods.placed,
            pods.terminating,
        )

    def write_due(self, now: float) -> bool:
        """Whether the Deployment shows another count than the wanted one and may be written."""
        shown, version = self.replicas.desired, self.replicas.resource_version
        return (
            shown is not None
            and shown != self.desired
            and not self.writing
            and self.settled != (self.desired, version)
            and now >= self.retry_at
        )
