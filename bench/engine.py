"""Batching and the prefix cache of the engine image, as ratios from one run.

    make cluster-up && python3 hack/images.py build --only engine-cpu,model --load
    python3 bench/engine.py

Starts one engine pod on the local cluster (two CPU threads, four sequences, the test model) and
measures, from this machine:

* tokens per second with 1, 2 and 4 parallel requests; all finish their full length
* time to first token of a prompt of about 1,000 tokens, cold and with its prefix in the cache

Rounds are interleaved and medians are taken, so that a neighbour's load meets all alike. Writes
build/bench/engine.json. Standard library only.
"""

import http.client
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "build" / "bench" / "engine.json"
KUBECONFIG = ROOT / "build" / "cluster" / "kubeconfig"
KUBECTL = "/var/lib/overspill-cluster/bin/kubectl"
NAMESPACE = "overspill-bench"
PARALLEL = (1, 2, 4)
ANSWER_TOKENS = 96
ROUNDS = 3
SHARED_PROMPT = " ".join(f"Rule {n}: answer politely and in full sentences." for n in range(90))
QUESTIONS = itertools.count()


@dataclass(frozen=True)
class Answer:
    """One streamed answer: seconds to its first token, and what the engine counted."""

    ttft: float
    prompt_tokens: int
    cached_tokens: int
    tokens: int


def kubectl(*arguments: str, stdin: str = "") -> str:
    """Run kubectl against the local cluster."""
    command = [KUBECTL, "--kubeconfig", str(KUBECONFIG), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=180)
    if done.returncode:
        sys.exit(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def pod(images: dict[str, str]) -> dict[str, Any]:
    """One engine pod with its model as an image volume."""
    env = {
        "OVERSPILL_MODEL_PATH": "/model",
        "OVERSPILL_SERVED_NAME": "bench",
        "OVERSPILL_CONTEXT_LENGTH": "2048",
        "OVERSPILL_MAX_SEQUENCES": str(max(PARALLEL)),
        "OVERSPILL_CPU_THREADS": "2",
    }
    container = {
        "name": "engine",
        "image": images["engine-cpu"],
        "imagePullPolicy": "Never",
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1},
        "volumeMounts": [{"name": "model", "mountPath": "/model", "readOnly": True}],
    }
    model = {"name": "model", "image": {"reference": images["model"], "pullPolicy": "Never"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "engine", "namespace": NAMESPACE},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001},
            "containers": [container],
            "volumes": [model],
        },
    }


@contextmanager
def engine(images: dict[str, str]) -> Iterator[str]:
    """The address of a ready engine, in a namespace that is removed afterwards."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    try:
        kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
        kubectl("apply", "-f", "-", stdin=json.dumps(pod(images)))
        in_namespace = ("-n", NAMESPACE)
        kubectl("wait", *in_namespace, "--for=condition=Ready", "pod/engine", "--timeout=90s")
        yield kubectl("get", "pod", "engine", *in_namespace, "-o", "jsonpath={.status.podIP}")
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")


def ask(host: str, prompt: str, tokens: int) -> Answer:
    """Stream one completion of exactly `tokens` tokens."""
    body = {
        "prompt": prompt,
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection(host, 8000, timeout=120)
    began = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body))
    first: float = 0
    usage: dict[str, Any] = {}
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            first = first or time.perf_counter() - began
            usage = json.loads(line[6:]).get("usage") or usage
    connection.close()
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return Answer(first, usage["prompt_tokens"], cached, usage["completion_tokens"])


def throughput(host: str, requests: int) -> float:
    """Tokens per second of `requests` parallel answers, until the last one's end."""
    prompts = [f"{next(QUESTIONS)} foxes went out one day and" for _ in range(requests)]
    began = time.perf_counter()
    with ThreadPoolExecutor(requests) as pool:
        answers = list(pool.map(lambda prompt: ask(host, prompt, ANSWER_TOKENS), prompts))
    return sum(answer.tokens for answer in answers) / (time.perf_counter() - began)


def prefix(host: str) -> tuple[Answer, Answer]:
    """A long prompt that nobody asked before, and another question after the same prompt."""
    shared = f"Customer {next(QUESTIONS)}. {SHARED_PROMPT}"
    cold = ask(host, f"{shared} What is rule 7?", 1)
    return cold, ask(host, f"{shared} Name the last rule.", 1)


def measure(host: str) -> dict[str, Any]:
    """All figures of one run."""
    ask(host, "Warm up.", 8)
    rates: dict[int, list[float]] = {requests: [] for requests in PARALLEL}
    pairs = []
    for number in range(ROUNDS):
        for requests in PARALLEL:
            rates[requests].append(throughput(host, requests))
        pairs.append(prefix(host))
        print(f"round {number + 1} of {ROUNDS} done", flush=True)
    medians = {requests: statistics.median(values) for requests, values in rates.items()}
    cold = statistics.median(cold.ttft for cold, _ in pairs)
    cached = statistics.median(cached.ttft for _, cached in pairs)
    return {
        "batching": [
            {
                "parallel_requests": requests,
                "tokens_per_second": round(rate, 1),
                "ratio": round(rate / medians[1], 2),
            }
            for requests, rate in medians.items()
        ],
        "prefix_cache": {
            "prompt_tokens": pairs[0][1].prompt_tokens,
            "cached_tokens": min(cached.cached_tokens for _, cached in pairs),
            "cold_ttft_ms": round(cold * 1000),
            "cached_ttft_ms": round(cached * 1000),
            "ratio": round(cold / cached, 1),
        },
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text()
    names = [line.split(": ", 1)[1] for line in info.splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def table(result: dict[str, Any]) -> str:
    """The figures as a person reads them."""
    lines = ["parallel requests   tokens/s   ratio"]
    for row in result["batching"]:
        rate = row["tokens_per_second"]
        lines.append(f"{row['parallel_requests']:>17}   {rate:>8}   {row['ratio']:>5}")
    cache = result["prefix_cache"]
    lines += [
        "",
        f"first token of a prompt of {cache['prompt_tokens']} tokens",
        f"  cold                {cache['cold_ttft_ms']:>6} ms",
        f"  {cache['cached_tokens']} tokens cached  {cache['cached_ttft_ms']:>6} ms"
        f"   ({cache['ratio']} times faster)",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the result file."""
    references = ROOT / "build" / "images.json"
    if not (KUBECONFIG.exists() and references.exists()):
        sys.exit("run `make cluster-up` and `make images` first")
    images = json.loads(references.read_text())
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "image": images["engine-cpu"],
        "machine": machine(),
    }
    with engine(images) as host:
        result = about | measure(host)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{table(result)}\n\n{RESULT.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
