"""The chart's objects for a Prometheus operator and a Grafana: absent unless asked for."""

import json
import re
from typing import Any

import pytest
import yaml
from chart_world import CHART, Helm, HelmFailed, env, named, settings

from overspill.api.metrics import SERVICE_LABELS
from overspill.api.names import ANNOTATION_METRICS_PATH

MONITORING = {"PodMonitor", "PrometheusRule"}


def kinds(objects: list[dict[str, Any]]) -> set[str]:
    return {o["kind"] for o in objects}


def test_nothing_of_it_is_there_by_default(helm: Helm) -> None:
    objects = helm.template()
    assert not kinds(objects) & MONITORING
    maps = [o["metadata"]["name"] for o in objects if o["kind"] == "ConfigMap"]
    assert [name for name in maps if not name.endswith("-ledger")] == []


def test_pods_of_ours_and_engines_are_monitored(helm: Helm) -> None:
    enabled = {"enabled": True, "labels": {"release": "kps"}, "interval": "10s"}
    objects = helm.template(**{"monitoring.podMonitor": enabled})
    ours = named(objects, "PodMonitor", "overspill")
    engines = named(objects, "PodMonitor", "overspill-engines")
    assert kinds(objects) & MONITORING == {"PodMonitor"}
    for monitor in (ours, engines):
        assert monitor["metadata"]["labels"]["release"] == "kps"
        assert monitor["spec"]["podMetricsEndpoints"][0]["interval"] == "10s"
    for name in ("operator", "gateway"):
        pod = named(objects, "Deployment", f"overspill-{name}")["spec"]["template"]
        assert ours["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ports = [p["name"] for c in pod["spec"]["containers"] for p in c["ports"]]
        assert ours["spec"]["podMetricsEndpoints"][0]["port"] in ports
    assert engines["spec"]["namespaceSelector"] == {"any": True}
    relabelled = engines["spec"]["podMetricsEndpoints"][0]["relabelings"]
    assert [r["targetLabel"] for r in relabelled] == [*SERVICE_LABELS, "__metrics_path__"]
    # https://prometheus.io/docs/prometheus/latest/configuration/configuration/#pod
    path = re.sub(r"[^a-zA-Z0-9_]", "_", ANNOTATION_METRICS_PATH)
    assert relabelled[2]["sourceLabels"] == [f"__meta_kubernetes_pod_annotation_{path}"]


def test_engines_are_looked_for_in_the_watched_namespaces_only(helm: Helm) -> None:
    values = {"monitoring.podMonitor.enabled": True, "watchNamespaces": ["team-a"]}
    engines = named(helm.template(**values), "PodMonitor", "overspill-engines")
    assert engines["spec"]["namespaceSelector"] == {"matchNames": ["team-a"]}


def test_rules_have_the_values_filled_in(helm: Helm) -> None:
    rules = {"enabled": True, "labels": {"role": "alerts"}, "dollarsPerHour": 2.5}
    rules["runbookURL"] = "https://docs.example.com/r"
    objects = helm.template(**{"monitoring.rules": rules})
    rule = named(objects, "PrometheusRule", "overspill")
    assert rule["metadata"]["labels"]["role"] == "alerts"
    text = (CHART / "files/rules.yaml").read_text()
    filled = text.replace("$RUNBOOKS", rules["runbookURL"]).replace("$DOLLARS_PER_HOUR", "2.5")
    assert rule["spec"] == yaml.safe_load(filled)


def test_a_prometheus_that_asks_who_reads_is_reached_with_what_the_values_name(helm: Helm) -> None:
    asked = {
        "url": "https://prometheus.monitoring:9090",
        "credentialsSecret": "reader",
        "caConfigMap": "ca",
    }
    operator = named(helm.template(prometheus=asked), "Deployment", "overspill-operator")
    told, spec = env(operator), operator["spec"]["template"]["spec"]
    mounts = {m["mountPath"]: m["name"] for m in spec["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    secret = volumes[mounts[told["OVERSPILL_PROMETHEUS_CREDENTIALS"]]]["secret"]
    folder, _, file = told["REQUESTS_CA_BUNDLE"].rpartition("/")
    authority = volumes[mounts[folder]]["configMap"]
    assert (secret, authority, file) == ({"secretName": "reader"}, {"name": "ca"}, "ca.crt")
    without = env(named(helm.template(), "Deployment", "overspill-operator"))
    assert not {"OVERSPILL_PROMETHEUS_CREDENTIALS", "REQUESTS_CA_BUNDLE"} & without.keys()


def test_one_value_gives_prometheus_the_recording_rules_and_tells_the_operator(helm: Helm) -> None:
    rules = yaml.safe_load((CHART / "files/recording.yaml").read_text())
    asked = {"url": "http://prometheus.monitoring:9090", "recordingRules": True}
    theirs = helm.template(prometheus=asked, **{"monitoring.rules.labels": {"role": "rules"}})
    rule = named(theirs, "PrometheusRule", "overspill-recording")
    assert rule["spec"] == rules
    assert rule["metadata"]["labels"]["role"] == "rules"
    ours = helm.template(prometheus={"enabled": True, "recordingRules": True})
    assert not kinds(ours) & MONITORING
    files = named(ours, "ConfigMap", "overspill-prometheus")["data"]
    assert yaml.safe_load(files["recording.yaml"]) == rules
    config = yaml.safe_load(files["prometheus.yml"])
    assert config["rule_files"] == ["/etc/overspill/recording.yaml"]
    without = helm.template(prometheus={"enabled": True})
    assert list(named(without, "ConfigMap", "overspill-prometheus")["data"]) == ["prometheus.yml"]
    for objects, told in ((theirs, "true"), (ours, "true"), (without, "false")):
        operator = env(named(objects, "Deployment", "overspill-operator"))
        assert operator["OVERSPILL_RECORDING_RULES"] == told


def test_dashboards_are_config_maps_that_a_sidecar_finds(helm: Helm) -> None:
    dashboards = {"enabled": True, "annotations": {"grafana_folder": "Models"}}
    objects = helm.template(**{"monitoring.dashboards": dashboards})
    maps = [o for o in objects if "grafana_dashboard" in o["metadata"].get("labels", {})]
    assert [o["metadata"]["name"] for o in maps] == [
        "overspill-dashboard-cost",
        "overspill-dashboard-operations",
    ]
    for obj in maps:
        assert obj["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert obj["kind"] == "ConfigMap"
        assert obj["metadata"]["annotations"] == {"grafana_folder": "Models"}
        ((name, text),) = obj["data"].items()
        source = CHART / "files/dashboards" / name.removeprefix("overspill-")
        assert json.loads(text) == json.loads(source.read_text())


@pytest.mark.parametrize(
    ("values", "named_in_error"),
    [
        ({"podMonitor": {"interval": "31s"}}, "/monitoring/podMonitor/interval"),
        ({"podMonitor": {"labels": {"a": 1}}}, "/monitoring/podMonitor/labels/a"),
        ({"rules": {"dollarsPerHour": 0}}, "/monitoring/rules/dollarsPerHour"),
        ({"rules": {"runbookURL": "runbooks"}}, "/monitoring/rules/runbookURL"),
        ({"dashboard": {"enabled": True}}, "dashboard"),
    ],
)
def test_a_wrong_value_is_named(helm: Helm, values: dict[str, Any], named_in_error: str) -> None:
    with pytest.raises(HelmFailed, match=named_in_error):
        helm("template", "overspill", str(CHART), *settings({"monitoring": values}))
