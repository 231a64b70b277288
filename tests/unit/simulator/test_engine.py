"""One replica: times of the latency model, a batch that advances together, and its KV cache."""

import pytest

from overspill.simulator.engine import Engine, Job, LatencyModel, Replica
from overspill.simulator.traces import Request

MODEL = LatencyModel(alpha=0.01, beta=1e-4, gamma=1e-6)


def job(prompt: int = 100, answer: int = 11, cached: int = 0) -> Job:
    request = Request(0.0, prompt, answer, cached)
    return Job(request, (MODEL.weight(request), MODEL.token(request), MODEL.prompt(request)))


def replica(slots: int = 8, kv_tokens: float = 1e6) -> Replica:
    return Replica(Engine(MODEL, slots, kv_tokens), 0.0)


def test_a_request_alone_takes_what_the_formula_says() -> None:
    """llm-d: prefill = T + (β+γ) I, then O − 1 tokens of T + β + γ (I+O/2) each."""
    one, it = replica(), job()
    iteration = 0.01 + 1e-4 * 111 / 12 + 1e-6 * 105.5
    end = it_end = one.join(0.0, it)
    assert it.first == pytest.approx(iteration + 1.01e-4 * 100)
    assert end - it.first == pytest.approx(10 * (iteration + 1e-4 + 1e-6 * 105.5))
    finished, following = one.finish(it_end)
    assert (finished, following, one.running, one.tokens) == (it, None, 0, 0)
    assert it.itl == pytest.approx(iteration + 1e-4 + 1e-6 * 105.5)


def test_a_second_request_slows_both_from_when_it_joins() -> None:
    alone, first, second = replica(), job(), job()
    end = alone.join(0.0, first)
    half = end / 2
    later = alone.join(half, second)
    assert later > end
    assert later < half + 2 * (end - half)  # a batch is faster than one after another
    assert alone.finish(later)[0] is first


def test_cached_tokens_are_not_computed() -> None:
    cold, warm = job(1000), job(1000, cached=900)
    for it in (cold, warm):
        replica().join(0.0, it)
    assert cold.first - warm.first == pytest.approx(900 * 1e-4 * (1 + 1 / 12))


def test_a_replica_has_room_for_slots_and_tokens() -> None:
    full = replica(slots=2, kv_tokens=300)
    assert full.has_room(1000)  # larger than the cache: alone
    full.join(0.0, job())
    assert full.has_room(189)
    assert not full.has_room(190)
    assert full.kv_usage == pytest.approx(111 / 300)
    full.join(0.0, job())
    assert not full.has_room(1)


def test_a_token_has_no_gap() -> None:
    it = job(answer=1)
    one = replica()
    assert one.join(0.0, it) == pytest.approx(it.first)
    one.finish(it.first)
    assert it.itl == 0.0


def test_an_engine_whose_iterations_cost_nothing_by_themselves_serves() -> None:
    """A fit on CPUs can find that."""
    model, it = LatencyModel(0.0, 1e-4, 0.0), job(answer=3)
    it.parts = (model.weight(it.request), model.token(it.request), model.prompt(it.request))
    assert Replica(Engine(model, 1, 1e6), 0.0).join(7.0, it) > it.first > 7.0
