"""The page: by itself, well formed, and with what it was given."""

import re
from xml.etree import ElementTree

from overspill.simulator.report import COLUMNS, page
from overspill.simulator.timeline import Timeline

CURVE = [float(n % 7) for n in range(5000)]


def timeline(name: str, ttft: list[float | None] | None = None) -> Timeline:
    return Timeline(name, 15.0, CURVE, CURVE, CURVE, CURVE, CURVE, ttft)


def test_a_page_is_by_itself_and_well_formed() -> None:
    shown = [timeline("<b>hpa", [None, *CURVE[1:]]), timeline("lcp")]
    html = page("A & B", ["Two days."], ["policy", "usd"], [["<b>hpa", "1.00"]], shown)
    assert not re.search(r"(src|href|url|import)\s*[=(]", html)
    assert "<script" not in html
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 1 + 3 + 2  # cost; one with a latency; one without
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert html.count("&lt;b&gt;hpa") >= 3
    assert "<b>" not in html
    assert "A &amp; B" in html


def test_long_runs_are_drawn_in_stretches() -> None:
    html = page("x", [], [], [], [timeline("lcp")])
    lines = re.findall(r'<polyline points="([^"]*)"', html)
    assert {len(points.split()) for points in lines} == {COLUMNS}
    places = [float(x) for point in lines[0].split() for x in point.split(",")[:1]]
    assert places == sorted(places)
    assert "6 h" in html


def test_a_run_that_is_empty_has_a_page() -> None:
    empty = Timeline("cloud", 15.0, [0.0], [0], [0], [0.0], [0.0], [None])
    assert "cloud" in page("x", [], [], [], [empty])


def test_policies_are_drawn_to_one_scale() -> None:
    large = Timeline("large", 15.0, [3000.0], [1], [1], [0.5], [0.0], [2.0])
    small = Timeline("small", 15.0, [1.0], [1], [1], [0.1], [0.0], [0.3])
    html = page("x", [], [], [], [large, small])
    charts = re.findall(r"<svg.*?</svg>", html, re.DOTALL)[1:]
    scales = [re.findall(r'text-anchor="end">([^<]*)<', chart) for chart in charts]
    assert scales[0] == ["0", "1,500", "3,000"]
    assert scales[:3] == scales[3:]
