"""Each baseline on the examples of its own documentation, and on its documented limits."""

import pytest

from overspill.simulator.baselines import aibrix, classic, delayed, hpa, keda, knative, wva
from overspill.simulator.fluid import Sight


def sight(now: float, load: float, ready: int, pending: int = 0) -> Sight:
    return Sight(now, load, ready, pending)


@pytest.mark.parametrize(
    ("replicas", "ready", "load", "target", "wanted"),
    [
        # "if the current metric value is 200m and the desired value is 100m, the number of
        # replicas will be doubled"
        (3, 3, 3 * 0.2, 0.1, 6),
        # "if the current value is instead 50m, you'll halve the number of replicas"
        (4, 4, 4 * 0.05, 0.1, 2),
        # "within a globally-configurable tolerance, 0.1 by default": no action
        (10, 10, 10 * 0.77, 0.7, 10),
        (10, 10, 10 * 0.79, 0.7, 12),
        # "assumes that pods that are not yet ready are consuming 0% of the metric"
        (6, 3, 3 * 1.4, 0.7, 6),
        (4, 3, 3 * 1.4, 0.7, 6),
    ],
)
def test_hpa_algorithm(replicas: int, ready: int, load: float, target: float, wanted: int) -> None:
    assert hpa.recommend(replicas, ready, load, target) == wanted


def test_hpa_default_behaviour() -> None:
    """Up 100 % or four pods in 15 s; down to the highest recommendation of 300 s."""
    scaler = hpa.HorizontalPodAutoscaler(1.0)
    assert scaler.target(sight(0, 50.0, 1)) == 5
    assert scaler.target(sight(15, 50.0, 10)) == 20
    assert scaler.target(sight(30, 5.0, 20)) == 20
    assert scaler.target(sight(314, 5.0, 20)) == 20
    assert scaler.target(sight(315, 5.0, 20)) == 5


def test_keda_divides_the_value_by_the_threshold_every_30_s() -> None:
    scaler = keda.Keda(0.5)
    assert scaler.target(sight(0, 2.0, 1)) == 4
    assert scaler.target(sight(15, 4.0, 4)) == 4
    assert scaler.target(sight(30, 4.0, 4)) == 8


def test_kpa_averages_over_its_windows() -> None:
    """A stable window of 60 s; a panic at twice what is ready; no fall in panic."""
    scaler = knative.KnativePodAutoscaler(1.0)
    for now, load in ((0, 2.0), (15, 2.0), (30, 2.0), (45, 2.0)):
        assert scaler.target(sight(now, load, 2)) == 2
    assert scaler.target(sight(60, 2.8, 2)) == 3  # (2 + 2 + 2 + 2.8) / 4
    assert scaler.target(sight(75, 6.0, 3)) == 6  # panics: the last 6 s want 6 ≥ 2 × 3
    assert scaler.target(sight(90, 1.0, 6)) == 6
    assert scaler.target(sight(120, 1.0, 6)) == 6
    assert scaler.target(sight(135, 1.0, 6)) == 3  # calm again, at most half of them at once


@pytest.mark.parametrize(
    ("replicas", "load", "wanted"),
    [(4, 4 * 1.1, 4), (4, 4 * 0.9, 4), (4, 4 * 1.5, 6), (4, 40, 8), (8, 1, 4), (8, 6, 6)],
)
def test_apa_tolerances_and_rates(replicas: int, load: float, wanted: int) -> None:
    assert aibrix.desired(replicas, load, 1.0) == wanted


def test_ray_waits_30_s_up_and_600_s_down() -> None:
    scaler = delayed.RayServe(1.0)
    assert [scaler.target(sight(t, 4.0, 2)) for t in (0, 15, 30)] == [2, 2, 4]
    counts = [scaler.target(sight(t, 1.0, 4)) for t in range(45, 660, 15)]
    assert (counts[-2], counts[-1]) == (4, 1)


def test_ray_starts_over_when_the_wish_turns() -> None:
    scaler = delayed.RayServe(1.0)
    counts = [scaler.target(sight(t, x, 2)) for t, x in ((0, 4.0), (15, 2.0), (30, 4.0), (45, 4.0))]
    assert counts == [2, 2, 2, 2]


def test_skyserve_waits_300_s_up_and_1200_s_down() -> None:
    scaler = delayed.SkyServe(1.0)
    up = [scaler.target(sight(t, 3.0, 1)) for t in range(0, 310, 20)]
    assert (up[-2], up[-1]) == (1, 3)
    down = [scaler.target(sight(t, 1.0, 3)) for t in range(380, 1600, 20)]
    assert down.index(1) * 20 == 1200


def test_lcp_stays_where_both_optima_agree() -> None:
    """A start is due when its absence has cost a boot more, a stop when its presence has."""
    lcp = classic.LazyCapacityProvisioning(3.0, 4)
    counts, replicas = [], 0
    for tick, load in enumerate([1.0, 1.0, 0.0, 0.0, 0.0, 0.0]):
        replicas = lcp.target(sight(15.0 * tick, load, replicas))
        counts.append(replicas)
    assert counts == [0, 1, 1, 1, 1, 0]


def test_newsvendor_holds_the_quantile() -> None:
    vendor = classic.Newsvendor(4.0, 4)
    for load in (9.0, 1.0, 2.0, 3.0):
        vendor.learn(0.0, load)
    assert vendor.target(sight(0, 4.0, 1)) == 3  # of 1, 2, 3, 4 the 0.75 quantile


def test_best_constant_pays_for_each_replica() -> None:
    assert classic.best_constant([2.0, 2.0, 0.0, 0.0], 3.0) == 2
    assert classic.best_constant([2.0, 2.0, 0.0, 0.0], 1.9) == 0


@pytest.mark.parametrize(
    ("engines", "pending", "wanted"),
    [
        # KV ≥ 0.80 or five waiting: saturated, and the spare of the others counts
        ([(0.5, 0), (0.5, 0)], 0, 2),
        ([(0.75, 0), (0.72, 0)], 0, 3),  # spare KV 0.065 < 0.1
        ([(0.5, 2.5), (0.5, 2.5)], 0, 3),  # spare queue 2.5 < 3
        ([(0.75, 0), (0.72, 0)], 1, 3),  # not while one is pending
        ([(0.85, 0), (0.9, 6)], 0, 3),  # all saturated
        ([(0.85, 0), (0.3, 0)], 0, 2),  # one is, the other has to spare
        ([(0.3, 0), (0.3, 0), (0.3, 0)], 0, 2),  # 0.45 each on two
        ([(0.3, 0), (0.3, 0), (0.3, 0)], 1, 4),
        ([(0.1, 0)], 0, 1),  # never the last
    ],
)
def test_wva_scales_by_one_on_spare_capacity(
    engines: list[tuple[float, float]], pending: int, wanted: int
) -> None:
    assert wva.desired([wva.EngineLoad(*e) for e in engines], pending) == wanted
