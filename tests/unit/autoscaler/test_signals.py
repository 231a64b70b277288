"""What the answers of Prometheus mean for one service."""

from overspill.api.service import InferenceService
from overspill.autoscaler.signals import NO_DATA, Rules, Signals
from overspill.prometheus.samples import Missing

KEY = "team-a/chat"


def test_a_service_without_providers_spills_nothing():
    signals = Signals.of(KEY, {"gateways": {KEY: 2.0}, "arrivals_rate": {KEY: 0.0}})
    assert (signals.spilled_rate, signals.spilled_in_flight) == (0.0, 0.0)
    assert signals.complete


def test_without_a_gateway_nothing_is_zero():
    signals = Signals.of(KEY, {"gateways": {"team-a/other": 2.0}})
    assert signals == Signals()
    assert not signals.complete


def test_a_rate_before_the_second_scrape_is_no_data():
    """A Prometheus that has just started must not look like a service without requests."""
    signals = Signals.of(KEY, {"gateways": {KEY: 2.0}, "queued": {KEY: 0.0}})
    assert signals.arrivals_rate is NO_DATA
    assert not signals.complete


def test_what_is_not_a_number_stays_so():
    answers = {"gateways": {KEY: 1.0}, "ttft_p95": {KEY: Missing.NOT_A_NUMBER}}
    signals = Signals.of(KEY, answers)
    assert signals.ttft_p95 is Missing.NOT_A_NUMBER
    assert signals.numbers() == {"gateways": 1.0, "spilled_rate": 0.0, "spilled_in_flight": 0.0}


def test_rules_are_in_seconds():
    scaling = {"minReplicas": 0, "maxReplicas": 3, "idleAfter": "1m30s"}
    scaling["objective"] = {"ttft": {"p95": "800ms"}, "itl": {"p95": "60ms"}}
    raw = {"metadata": {"name": "chat"}, "spec": {"model": {"uri": "oci://a/b"}}}
    raw["spec"]["scaling"] = scaling
    rules = Rules.of(InferenceService.parse(raw), 4, 10.0, 300.0)
    assert rules == Rules(0, 3, 4, 0.8, 0.06, 1.0, 90.0, 10.0, 300.0)
