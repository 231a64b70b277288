"""The demo's verdict: what it leaves in files, and when it ends with status 1."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demo import main as demo
from demo.stages import STAGES, Run, Stage, why
from lab import platform
from lab.kube import Kube
from lab.load import Sent

NAMES = ["first_answer", "scale_out", "full", "spill", "return", "scale_in"]
Action = Callable[[Run, Stage], bool]
CLOUD = {"destination": "cloud", "reason": "ClusterFull", "ttft_ms": 80.0}


def sent(stage: str, **fields: Any) -> Sent:
    """A complete answer of the service's own, but for some fields."""
    whole = {"status": 200, "complete": True, "destination": "local", "ttft_ms": 20.0}
    return Sent(**{"t": 0.0, "stage": stage} | whole | fields)


def stage(requests: int = 40, *, happens: bool = True, **last: Any) -> Action:
    """A stage with so many requests, of which every second one spills; ``last`` is the last's."""

    def action(run: Run, stage: Stage) -> bool:
        stage.sent = [sent(stage.name, **(CLOUD if i % 2 else {})) for i in range(requests - 1)]
        stage.sent.append(sent(stage.name, **last))
        return happens

    return action


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the demo with other stages, on a cluster that answers nothing; its exit status."""
    (tmp_path / "kubectl").write_text("#!/bin/sh\n")
    (tmp_path / "kubectl").chmod(0o755)
    watcher = SimpleNamespace(
        look=lambda: SimpleNamespace(ready=1), now=SimpleNamespace(pods=0), rows=list
    )
    for name, value in {
        "ROOT": tmp_path,
        "FOLDER": tmp_path / "demo",
        "build": lambda: Kube(kubeconfig="none", path=str(tmp_path)),
        "prepare": lambda kube: "key",
        "plots": SimpleNamespace(draw=lambda run, path: None),
        "Watcher": lambda *_: nullcontext(watcher),
    }.items():
        monkeypatch.setattr(demo, name, value)

    def run(*actions: Action) -> int:
        stages = [(n, t, a) for (n, t, _), a in zip(STAGES, actions, strict=True)]
        monkeypatch.setattr(demo, "STAGES", stages)
        return demo.main()

    return run


GOOD = stage()


@pytest.mark.parametrize(
    ("third", "others", "status"),
    [
        (GOOD, GOOD, 0),
        (stage(happens=False), GOOD, 1),
        (stage(status=429), GOOD, 1),
        (stage(status=0, complete=False), GOOD, 1),
        (stage(complete=False), GOOD, 1),
        (GOOD, stage(31), 1),  # 195 requests in all are too few to mean something
    ],
)
def test_it_passes_when_all_happened_and_nothing_failed(
    third: Action, others: Action, status: int, play: Callable[..., int], tmp_path: Path
) -> None:
    assert play(others, others, third, others, others, others) == status
    result = json.loads((tmp_path / "demo/result.json").read_text())
    assert result["passed"] is (status == 0)


def test_what_it_leaves_behind(play: Callable[..., int], tmp_path: Path) -> None:
    """As other programs read it: no field may get another name."""
    play(stage(1), GOOD, GOOD, GOOD, stage(status=503, destination=""), stage(1))
    result = json.loads((tmp_path / "demo/result.json").read_text())
    assert [s["name"] for s in result["stages"]] == NAMES[:5], "it ends with what went wrong"
    took = result["stages"][4].pop("seconds")
    assert result["stages"][4] == {
        "name": "return",
        "ok": False,
        "requests": 40,
        "failed": 1,
        "by_destination": {"local": 20, "cloud": 19},
        "by_reason": {"ClusterFull": 19},
        "ttft_p95_ms": 80.0,
        "replicas_before": 1,
        "replicas_after": 1,
    }
    assert took >= 0
    lines = (tmp_path / "demo/requests.jsonl").read_text().splitlines()
    assert len(lines) == sum(s["requests"] for s in result["stages"])
    assert json.loads(lines[-1]) == {
        "t": 0.0,
        "stage": "return",
        "status": 503,
        "complete": True,
        "destination": "",
        "reason": "",
        "ttft_ms": 20.0,
        "tokens": 0,
    }


def test_a_count_that_nobody_can_explain_is_no_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = SimpleNamespace(kube=None, name="chat", namespace="demo")
    run = SimpleNamespace(watcher=watcher)
    for told in ("demo/chat: replicas 2 → 3 (ClusterFullProbe)\n  seen: [nothing]\n", ""):
        monkeypatch.setattr(platform, "overspill", lambda *_, told=told, **__: told)
        assert why(run) is bool(told)
    shown = capsys.readouterr().out
    assert "$ overspill why chat -n demo" in shown
    assert "seen: [nothing]" in shown


def test_the_stages_are_the_six_of_the_main_job() -> None:
    assert [name for name, _, _ in STAGES] == NAMES
