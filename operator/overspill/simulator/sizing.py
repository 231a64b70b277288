"""An engine and a provider that fit a load, so that both levels are asked the same question.

The engine's batch is as large as one would choose who knows the load: its inter-token latency stays
at a third of the objective, since batches vary and every request is to keep it. What such a replica
answers with a full batch is its capacity, and the provider's prices are those at which a full
replica's work costs a given multiple of the replica.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

from overspill.simulator.discrete import WARM_UP, Provider
from overspill.simulator.engine import Engine, LatencyModel
from overspill.simulator.traces import Request

MAX_SLOTS = 64
ITL_SHARE = 1 / 3  # of the objective, that a full batch takes on average
KV_ROOM = 1.25  # times what a full batch reserves on average
OUTPUT_PRICE = 4.0  # of an answer's token, over that of a prompt's, as providers commonly charge


def engine_for(model: LatencyModel, requests: Sequence[Request], itl: float) -> Engine:
    """Return an engine whose full batch keeps the objective.

    :param itl: seconds.
    """
    weight, tokens = _in_batch(model, requests)
    slots = int((ITL_SHARE * itl - model.alpha) / weight)
    slots = max(1, min(slots, MAX_SLOTS))
    return Engine(model, slots, KV_ROOM * slots * tokens)


def capacity(engine: Engine, requests: Sequence[Request]) -> float:
    """Return the requests/s that a replica answers with a full batch."""
    model, count = engine.model, len(requests)
    weight, _ = _in_batch(model, requests)
    iteration = model.alpha + engine.slots * weight
    prompts = sum(iteration + model.prompt(r) for r in requests)
    answers = sum((iteration + model.token(r)) * max(0, r.output_tokens - 1) for r in requests)
    return engine.slots * count / (prompts + answers)


def initial_replicas(requests: Sequence[Request], rate: float) -> int:
    """Return the replicas that the load needs when the first decision is made.

    :param rate: requests/s of a full replica.
    """
    begin, end = (bisect_left(requests, t, key=lambda r: r.time) for t in (WARM_UP / 2, WARM_UP))
    return math.ceil((end - begin) / (WARM_UP / 2) / rate)


def provider_for(requests: Sequence[Request], rate: float, hourly: float, ratio: float) -> Provider:
    """Return a provider at which a full replica's work costs ``ratio`` times the replica.

    :param rate: requests/s of a full replica.
    :param hourly: USD per replica and hour.
    """
    prompts = sum(r.input_tokens for r in requests)
    answers = sum(r.output_tokens for r in requests)
    per_request = ratio * hourly / 3600 / rate
    price = per_request * len(requests) / (prompts + OUTPUT_PRICE * answers)
    return Provider(price, OUTPUT_PRICE * price)


def _in_batch(model: LatencyModel, requests: Sequence[Request]) -> tuple[float, float]:
    """Return mean weight and tokens of what is in a batch: long answers are there for longer."""
    answers = sum(max(1, r.output_tokens) for r in requests)
    weights = sum(model.weight(r) * max(1, r.output_tokens) for r in requests)
    tokens = sum((r.input_tokens + r.output_tokens) * max(1, r.output_tokens) for r in requests)
    return weights / answers, tokens / answers
