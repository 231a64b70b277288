"""How long a provider rests, who probes it, and what the operator is told."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from overspill.api.provider import InferenceProvider
from overspill.gateway.breaker import LONGEST_PROBE, LONGEST_REST, Breaker
from overspill.gateway.provider import FAULT_MEMORY, Provider
from overspill.gateway.share import Share
from overspill.providers.base import Fault, ProviderUnusable

SERVER_ERROR = ProviderUnusable(Fault.SERVER_ERROR, "status 500")


def resource(url: str = "https://llm.example.com/v1", **spec: Any) -> InferenceProvider:
    price = {"inputPerMTok": "1", "outputPerMTok": "2"}
    return InferenceProvider.parse(
        {
            "metadata": {"name": "cloud", "namespace": "team-a"},
            "spec": {
                "type": "openai-compatible", "baseURL": url, "secretRef": {"name": "cloud-key"},
                "models": [{"name": "big-1", "price": price}], **spec,
            },
        }
    )  # fmt: skip


def one(**spec: Any) -> Provider:
    made = Provider(resource(**spec))
    made.configure(made.resource, Share(), 0.0)
    made.set_key("sk", "Ready", "", 0.0)
    return made


def test_rests_grow_to_a_minute_and_begin_anew_after_an_answer() -> None:
    breaker, now, rests = Breaker(), 100.0, []
    for _ in range(9):
        breaker.failed(ProviderUnusable(Fault.TIMED_OUT, "no answer in time"), now, now)
        rests.append(breaker.pause(now))
        now = breaker.until
    assert rests == [1, 2, 4, 8, 16, 32, LONGEST_REST, LONGEST_REST, LONGEST_REST]
    breaker.answered(now)
    breaker.failed(SERVER_ERROR, now, now)
    assert breaker.until == now + 1


def test_requests_that_fail_together_are_one_failure() -> None:
    provider = one()
    for moment in (100.0, 100.1, 100.2):
        provider.breaker.failed(SERVER_ERROR, 90.0, moment)
    assert provider.breaker.until == 101.2
    assert provider.readiness(100.3)[0], "one failure is gone before anybody reads of it"
    provider.breaker.failed(SERVER_ERROR, 90.0, 102.0)
    assert provider.breaker.pause(102.0) == 0, "it began before the rest, and tells nothing new"


def test_a_rate_limit_rests_as_long_as_the_provider_says_and_longer_where_it_says_nothing() -> None:
    provider, now = one(), 100.0
    for _ in range(5):
        failure = ProviderUnusable(Fault.RATE_LIMITED, "status 429", 7.0, told=True)
        provider.breaker.failed(failure, now, now)
        assert provider.breaker.until == now + 7
        now = provider.breaker.until
    provider.breaker.answered(now - 1)  # an answer to an older request ends no rest
    assert provider.readiness(now) == (
        False, "RateLimited", "status 429; tried again at least once a minute",
    )  # fmt: skip
    assert provider.readiness(now + FAULT_MEMORY)[0], "nobody asked since: nothing is known"
    provider.breaker.answered(now)
    assert provider.readiness(now) == (True, "Ready", "")
    for rest in (1, 2, 4):
        provider.breaker.failed(ProviderUnusable(Fault.RATE_LIMITED, "status 429"), now, now)
        assert provider.breaker.until == now + rest
        now += rest


def test_another_key_or_address_is_a_new_chance() -> None:
    provider = one()
    refused = ProviderUnusable(Fault.KEY_REFUSED, "refused", 10.0)
    provider.breaker.failed(refused, 100.0, 100.0)
    provider.set_key("sk", "Ready", "", 101.0)
    assert not provider.readiness(101.0)[0]
    provider.set_key("sk-2", "Ready", "", 102.0)
    assert provider.readiness(102.0)[0]
    provider.breaker.failed(refused, 101.0, 103.0)
    assert provider.readiness(103.0)[0], "that was said of the old key"
    provider.breaker.failed(refused, 103.0, 103.0)
    provider.configure(resource("https://other.example.com/v1"), Share(), 104.0)
    assert provider.breaker.pause(104.0) == 0


def test_a_model_that_it_does_not_have_rests_by_itself() -> None:
    price = {"inputPerMTok": "1", "outputPerMTok": "2"}
    models = [{"name": name, "price": price} for name in ("big-1", "typo-1")]
    provider, now = one(models=models), 100.0
    for rest, told in ((1.0, []), (2.0, ["typo-1"]), (4.0, ["typo-1"])):
        assert provider.busy_for("typo-1", 1, now) is None
        permit = provider.admit("typo-1", 1, now)
        assert permit.probes is (rest > 1)
        provider.failed(permit, ProviderUnusable(Fault.MODEL_UNKNOWN, "status 404"), now)
        assert provider.release(permit, None, now) is permit.probes, "those who waited for it"
        assert provider.busy_for("typo-1", 1, now) == (
            f"it does not have typo-1, and is asked again in {rest:.0f} s", rest,
        )  # fmt: skip
        assert provider.busy_for("big-1", 1, now) is None
        assert provider.unknown_models(now) == told
        now += rest
    assert provider.readiness(now)[0], "its other model is there"
    assert provider.unknown_models(now + FAULT_MEMORY) == []
    provider.failed(provider.admit("big-1", 1, now), SERVER_ERROR, now)
    for moment in (now + 1, now + 9):
        failure = ProviderUnusable(Fault.MODEL_UNKNOWN, "status 404")
        provider.failed(provider.admit("big-1", 1, moment), failure, moment)
    assert provider.breaker.rests == 0, "it answers"
    assert provider.readiness(now + 9)[:2] == (False, "ModelUnknown"), "no model at all"
    assert provider.answered(provider.admit("typo-1", 1, now + 9))
    assert provider.unknown_models(now + 9) == ["big-1"]
    provider.set_key("sk-2", "Ready", "", now + 9)
    assert provider.readiness(now + 9) == (True, "Ready", "")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "fail", "fail", "answer", "leave"]),
        st.floats(0, 40),
        st.integers(0, 5),
    ),
    min_size=15,
    max_size=30,
)


@settings(max_examples=50)
@given(STEPS)
def test_after_a_rest_one_probes_at_a_time_and_nobody_is_shut_out_for_ever(
    steps: list[tuple[str, float, int]],
) -> None:
    breaker, now = Breaker(), 0.0
    running: list[float] = []
    for what, seconds, which in steps:
        now += seconds
        if what == "begin" and breaker.pause(now) == 0:
            probes = [b for b in running if b >= breaker.until and now - b < LONGEST_PROBE]
            assert not (breaker.half_open and probes), "exactly one"
            breaker.begin(now)
            running.append(now)
        elif what != "begin" and running:
            began = running.pop(which % len(running))
            if what == "fail":
                breaker.failed(SERVER_ERROR, began, now)
            elif what == "answer":
                breaker.answered(began)
                assert began < breaker.until or not breaker.half_open, "a success closes it"
            breaker.ended(began)
        assert breaker.pause(now) <= max(LONGEST_REST, LONGEST_PROBE) + 1e-6
