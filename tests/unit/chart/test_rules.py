"""The chart's alerts and dashboards, checked by Prometheus' own promtool.

promtool is in Debian's package prometheus (`make prometheus`).
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from rights import ROOT

from overspill.api import metrics

FILES = ROOT / "charts/overspill/files"
RUNBOOKS = "https://example.com/runbooks"
RULES = (
    (FILES / "rules.yaml")
    .read_text()
    .replace("$RUNBOOKS", RUNBOOKS)
    .replace("$DOLLARS_PER_HOUR", "5")
)
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES)["groups"][0]["rules"]
DASHBOARDS = sorted((FILES / "dashboards").glob("*.json"))
OURS = {
    value
    for name, value in vars(metrics).items()
    if name.isupper() and isinstance(value, str) and re.fullmatch(r"[a-z0-9_:]+", value)
}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool on the PATH (Debian package prometheus)"
)


def promtool(*arguments: str | Path) -> None:
    """Run promtool; what it says is the failure's message."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def unknown_metrics(expression: str) -> set[str]:
    """The metric names in a PromQL expression that nothing exports."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)|on \([^)]*\)', " ", expression)
    names = set(re.findall(r"\b(?:overspill_|llamacpp:|vllm:)\w+", bare))
    return {
        n for n in names if n not in OURS and re.sub(r"_(bucket|sum|count)$", "", n) not in OURS
    }


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard that ask something."""
    return [p for p in json.loads(path.read_text())["panels"] if p["type"] != "row"]


@needs_promtool
def test_every_alert_fires_where_it_should_and_only_there(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    cases = Path(__file__).with_name("rules_test.yaml").read_text()
    (tmp_path / "rules_test.yaml").write_text(cases)
    promtool("check", "rules", "--lint-fatal", tmp_path / "rules.yaml")
    promtool("test", "rules", tmp_path / "rules_test.yaml")
    tested = {a["alertname"] for t in yaml.safe_load(cases)["tests"] for a in t["alert_rule_test"]}
    assert tested == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda a: a["alert"])
def test_an_alert_names_known_metrics_and_a_page_that_is_there(alert: dict[str, Any]) -> None:
    assert unknown_metrics(alert["expr"]) == set()
    page = alert["annotations"]["runbook_url"].removeprefix(f"{RUNBOOKS}/")
    assert page == f"{alert['alert']}.md"
    assert (ROOT / "docs/runbooks" / page).read_text().startswith(f"# {alert['alert']}\n")


@needs_promtool
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.stem)
def test_prometheus_parses_every_panel_and_knows_its_metrics(path: Path, tmp_path: Path) -> None:
    expressions = [t["expr"] for panel in panels(path) for t in panel["targets"]]
    assert len(expressions) >= 8
    assert {name for e in expressions for name in unknown_metrics(e)} == set()
    rules = [
        {"record": f"panel:{i}", "expr": without_variables(e)} for i, e in enumerate(expressions)
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": path.stem, "rules": rules}]}))
    promtool("check", "rules", file)


def without_variables(expression: str) -> str:
    """Put in what Grafana would: https://grafana.com/docs/grafana/latest/dashboards/variables/"""
    filled = expression.replace("$__rate_interval", "1m").replace("$__range", "24h")
    filled = filled.replace("$gpu_hour", "0.80")
    return filled.replace("$namespace", ".*").replace("$service", ".*")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.stem)
def test_panels_have_titles_units_and_do_not_overlap(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] == f"overspill-{path.stem}"
    assert board["title"].startswith("Overspill")
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        xs, ys = range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])
        cells = {(x, y) for x in xs for y in ys}
        assert not cells & taken
        assert grid["x"] + grid["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"]
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])
