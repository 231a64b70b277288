"""The latency model comes back out of the times of a simulated engine that has it."""

import math
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overspill.simulator.calibration import CalibrationError, Measured, fit
from overspill.simulator.engine import Engine, Job, LatencyModel, Replica
from overspill.simulator.traces import Request

PART = 25  # requests of each part of the load


def served(model: LatencyModel, seed: int = 0, noise: float = 0.0) -> list[Measured]:
    """What a client measures that keeps 1, 2 and 4 requests under way in a simulated engine.

    :param noise: standard deviation of a measured time's logarithm.
    """
    generator = random.Random(seed)
    now, found = 0.0, list[Measured]()
    for parallel in (1, 2, 4):
        replica, left, end = Replica(Engine(model, 8, math.inf), 0.0), PART, math.inf
        while left or replica.running:
            while left and replica.running < parallel:
                left -= 1
                prompt, answer = generator.randint(16, 512), generator.randint(8, 64)
                request = Request(now, prompt, answer, generator.choice((0, prompt // 2)))
                parts = (model.weight(request), model.token(request), model.prompt(request))
                end = replica.join(now, Job(request, parts))
            now = end
            job, following = replica.finish(now)
            end = following if following is not None else math.inf
            slow, slower = (math.exp(generator.gauss(0.0, noise)) for _ in range(2))
            first = job.request.time + job.ttft * slow
            found.append(Measured(job.request, first, first + (job.end - job.first) * slower))
    return found


@settings(max_examples=25, deadline=None)
@given(
    alpha=st.floats(1e-3, 0.05),
    beta=st.floats(1e-5, 1e-2),
    gamma=st.floats(1e-8, 1e-5),
    seed=st.integers(0, 10),
    noise=st.sampled_from((0.0, 0.2)),
)
@example(alpha=4e-3, beta=17e-6, gamma=0.167e-6, seed=0, noise=0.0)  # a GPU
@example(alpha=4e-3, beta=4e-3, gamma=1e-6, seed=0, noise=0.0)  # two CPUs
def test_the_model_comes_back_within_its_errors(
    alpha: float, beta: float, gamma: float, seed: int, noise: float
) -> None:
    model = LatencyModel(alpha, beta, gamma)
    found = fit(served(model, seed, noise))
    for name, true in vars(model).items():
        error = getattr(found.errors, name)
        assert abs(getattr(found.model, name) - true) <= 4 * error + 0.04 * true, name
    for residual in (found.ttft, found.itl):
        assert 0.7 * noise <= residual <= 1.5 * noise + 0.15


def test_two_parameters_of_a_known_engine_are_known_well() -> None:
    gpu = LatencyModel(4e-3, 17e-6, 0.167e-6)
    found = fit(served(gpu))
    assert found.model.alpha == pytest.approx(gpu.alpha, rel=0.01)
    assert found.model.beta == pytest.approx(gpu.beta, rel=0.01)
    assert found.errors.beta < 0.01 * gpu.beta
    assert max(found.ttft, found.itl) < 0.02


def alone(start: float, prompt: int, ttft: float, itl: float) -> Measured:
    """A request with nobody beside it, that gets 11 tokens."""
    first = start + ttft
    return Measured(Request(start, prompt, 11), first, first + 10 * itl)


def test_no_parameter_is_negative() -> None:
    """An engine that is the quicker the longer the prompt: what is read costs nothing then."""
    found = fit([alone(100.0 * n, 10 + 50 * n, 1.0 - 0.04 * n, 0.1 - 0.004 * n) for n in range(20)])
    assert min(vars(found.model).values()) == 0.0
    assert found.model.alpha > 0
    assert found.ttft > 0.1


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ([], "0 requests were answered, 8 are needed"),
        ([alone(9.0 * n, 100, 1.0, 0.1) for n in range(20)], "too much alike"),
        ([alone(9.0 * n, 10 + n, 0.0, 0.1) for n in range(20)], "took no time"),
        ([alone(9.0 * n, 10 + n, 1.0, 0.0) for n in range(20)], "took no time"),
    ],
)
def test_what_says_nothing_is_refused(measured: list[Measured], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        fit(measured)
