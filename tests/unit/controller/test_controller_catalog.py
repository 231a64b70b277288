"""Which services concern each other."""

from typing import Any

import pytest

from overspill.controller.catalog import Catalog, Key
from overspill.controller.settings import Settings, SettingsError


def raw(name: str, created: str = "1", served: str = "", **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "creationTimestamp": created}
    model = {"servedName": served} if served else {}
    return {"metadata": metadata, "spec": {"model": model, **spec}}


def key(name: str) -> Key:
    return Key.service("ns", name)


def test_the_older_of_two_services_keeps_the_name() -> None:
    catalog = Catalog()
    assert catalog.put(raw("young", "2", "qwen")) == {key("young")}
    assert catalog.put(raw("old", "1", "qwen")) == {key("old"), key("young")}
    assert catalog.name_taken_by(key("young")) == "ns/old"
    assert catalog.name_taken_by(key("old")) == ""


def test_an_object_name_counts_as_served_name() -> None:
    catalog = Catalog()
    catalog.put(raw("qwen", "1"))
    catalog.put(raw("other", "2", "qwen"))
    assert catalog.name_taken_by(key("other")) == "ns/qwen"


def test_a_change_that_frees_a_name_concerns_the_other() -> None:
    catalog = Catalog()
    catalog.put(raw("old", "1", "qwen"))
    catalog.put(raw("young", "2", "qwen"))
    assert catalog.put(raw("old", "1", "else")) == {key("old"), key("young")}
    assert catalog.name_taken_by(key("young")) == ""
    catalog.put(raw("old", "1", "qwen"))
    assert catalog.remove(key("old")) == {key("old"), key("young")}


def test_other_namespaces_do_not_matter() -> None:
    catalog = Catalog()
    other = raw("old", "0", "qwen")
    other["metadata"]["namespace"] = "elsewhere"
    catalog.put(other)
    catalog.put(raw("young", "2", "qwen"))
    assert catalog.name_taken_by(key("young")) == ""


def test_the_users_of_a_provider() -> None:
    catalog = Catalog()
    spillover = {"providers": [{"name": "openai"}, {"name": "shared", "namespace": "platform"}]}
    catalog.put(raw("a", spillover=spillover))
    catalog.put(raw("b"))
    assert catalog.users(Key.provider("ns", "openai")) == {key("a")}
    assert catalog.users(Key.provider("platform", "shared")) == {key("a")}
    assert catalog.users(Key.provider("ns", "shared")) == set()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"OVERSPILL_NAMESPACE": ""}, "OVERSPILL_NAMESPACE"),
        ({"OVERSPILL_UP_WINDOW": "soon"}, "OVERSPILL_UP_WINDOW"),
        ({"OVERSPILL_AUTOSCALER_INTERVAL": "0s"}, "OVERSPILL_AUTOSCALER_INTERVAL"),
        ({"OVERSPILL_METRICS_PORT": "http"}, "OVERSPILL_METRICS_PORT"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, str], words: str) -> None:
    good = {"OVERSPILL_NAMESPACE": "ns", "OVERSPILL_ENGINE_IMAGE": "x"}
    assert Settings.from_environment(good).url == "http://overspill-gateway.ns.svc/v1"
    with pytest.raises(SettingsError, match=words):
        Settings.from_environment({**good, **change})
