"""What the demo leaves behind: result.json, requests.jsonl, a table and the plots."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demo import screen
from demo.stages import ENOUGH_REQUESTS, Run

REQUEST_FIELDS = ("t", "stage", "status", "complete", "destination", "reason", "ttft_ms", "tokens")


def write(run: Run, folder: Path) -> dict[str, Any]:
    """Write ``result.json``, ``requests.jsonl`` and ``samples.jsonl``; return the result."""
    results = [stage.result() for stage in run.stages]
    passed = all(r["ok"] for r in results) and len(run.sent) >= ENOUGH_REQUESTS
    result = {"stages": results, "passed": passed}
    requests = [{k: v for k, v in asdict(s).items() if k in REQUEST_FIELDS} for s in run.sent]
    _write_lines(folder / "requests.jsonl", requests)
    _write_lines(folder / "samples.jsonl", run.watcher.rows())
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def show(result: dict[str, Any]) -> None:
    """Print the stages as a table."""
    rows = []
    for r in result["stages"]:
        away = sum(n for d, n in r["by_destination"].items() if d != "local")
        ttft = "–" if r["ttft_p95_ms"] is None else f"{r['ttft_p95_ms']:.0f} ms"
        replicas = f"{r['replicas_before']} → {r['replicas_after']}"
        local = str(r["by_destination"].get("local", 0))
        took = f"{r['seconds']:.0f} s"
        mark = "yes" if r["ok"] else "NO"
        rows.append(
            [
                r["name"],
                mark,
                took,
                replicas,
                local,
                str(away),
                str(r["failed"]),
                ttft,
            ]
        )
    columns = ["stage", "happened", "took", "ready", "local", "spilled", "failed", "TTFT p95"]
    screen.table("What happened", columns, rows)


def show_costs(service: dict[str, Any]) -> None:
    """Print dollars on both sides, from the service's status."""
    cost = service.get("status", {}).get("cost") or {}
    hours, own, spilled = (cost.get(n, 0.0) for n in ("gpuHours", "gpuDollars", "spilledDollars"))
    rows = [
        ["own GPUs", f"{hours:.3g} GPU-hours at cost.gpuHour", f"${own:.4f}"],
        ["cloud", "tokens at the provider's price", f"${spilled:.4f}"],
    ]
    screen.table("What it cost (status.cost, 24 h)", ["side", "of", "dollars"], rows)
