from typing import Any

import pytest

from overspill.controller.targets import groups


def pod(labels: dict[str, str], ports: dict[str, int], **status: str) -> dict[str, Any]:
    listed = [{"name": n, "containerPort": p} for n, p in ports.items()]
    return {
        "metadata": {"name": "pod-1", "namespace": "team-a", "labels": labels},
        "spec": {"containers": [{"ports": listed}, {}]},
        "status": {"phase": "Running", "podIP": "10.0.0.7"} | status,
    }


def test_an_engine_is_scraped_on_its_api_port_and_carries_its_service() -> None:
    labels = {"overspill.dev/service": "chat", "app.kubernetes.io/component": "engine"}
    assert groups(pod(labels, {"http": 8000})) == [
        {
            "targets": ["10.0.0.7:8000"],
            "labels": {
                "namespace": "team-a",
                "pod": "pod-1",
                "component": "engine",
                "service_namespace": "team-a",
                "service_name": "chat",
            },
        }
    ]


def test_a_gateway_is_scraped_on_its_metrics_port_only() -> None:
    labels = {"app.kubernetes.io/component": "gateway"}
    (group,) = groups(pod(labels, {"http": 8080, "metrics": 9090}))
    assert group["targets"] == ["10.0.0.7:9090"]
    assert "service_name" not in group["labels"]


def test_ipv6() -> None:
    assert groups(pod({}, {"metrics": 9090}, podIP="fd00::7"))[0]["targets"] == ["[fd00::7]:9090"]


@pytest.mark.parametrize(
    ("ports", "status"),
    [
        ({"metrics": 9090}, {"podIP": ""}),
        ({"metrics": 9090}, {"phase": "Succeeded"}),
        ({"metrics": 9090}, {"phase": "Pending"}),
        ({"http": 8080}, {}),
    ],
)
def test_what_cannot_be_scraped_is_left_out(ports: dict[str, int], status: dict[str, str]) -> None:
    assert groups(pod({}, ports, **status)) == []
