"""Which services concern each other."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.cluster.kinds import PVC
from overspill.controller.catalog import Catalog, Key, entry_of
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


def test_a_list_is_the_truth_except_of_what_changed_while_it_was_read() -> None:
    catalog = Catalog()
    for name in ("lost", "deleted", "renamed"):
        catalog.put(raw(name))
    catalog.begin_list()
    listed = [raw("deleted"), raw("renamed"), raw("missed")]
    catalog.put(raw("new"))
    catalog.put(raw("renamed", served="other"))
    catalog.remove(key("deleted"))
    assert catalog.replace(dict(map(entry_of, listed))) == {key("lost"), key("missed")}
    served = {k.name: entry.served_name for k, entry in catalog.entries.items()}
    assert served == {"missed": "missed", "new": "new", "renamed": "other"}


steps = st.tuples(
    st.sampled_from("abcd"), st.sampled_from("123"), st.sampled_from(["x", "y", None])
)


@given(st.lists(steps))
def test_whatever_happened_the_oldest_of_a_name_has_it(happened: list[Any]) -> None:
    catalog, alive = Catalog(), dict[str, tuple[str, str]]()
    for name, created, served in happened:
        if served is None:
            alive.pop(name, None)
            catalog.remove(key(name))
        else:
            alive[name] = (created, served)
            catalog.put(raw(name, created, served))
    for name, (_, served) in alive.items():
        first = min((c, n) for n, (c, s) in alive.items() if s == served)[1]
        assert catalog.name_taken_by(key(name)) == ("" if first == name else f"ns/{first}")


def test_the_users_of_a_provider() -> None:
    catalog = Catalog()
    spillover = {"providers": [{"name": "openai"}, {"name": "shared", "namespace": "platform"}]}
    catalog.put(raw("a", spillover=spillover))
    catalog.put(raw("b"))
    assert catalog.users(Key.provider("ns", "openai")) == {key("a")}
    assert catalog.users(Key.provider("platform", "shared")) == {key("a")}
    assert catalog.users(Key.provider("ns", "shared")) == set()


def test_the_users_of_a_runtime() -> None:
    catalog = Catalog()
    for name, runtime in (("a", "mine"), ("b", "auto"), ("c", "vllm"), ("d", "mine")):
        catalog.put(raw(name, engine={"runtime": runtime}))
    catalog.put(raw("e"))
    assert catalog.users(Key.runtime("ns", "mine")) == {key("a"), key("d")}
    assert catalog.users(Key.runtime("other", "mine")) == set()
    catalog.put(raw("a", engine={"runtime": "yours"}))
    assert catalog.users(Key.runtime("ns", "mine")) == {key("d")}
    assert catalog.users(Key.runtime("ns", "vllm")) == set()


@pytest.mark.parametrize(
    ("spec", "claims"),
    [
        ({}, set()),
        ({"model": {"uri": "oci://registry.example/m:1"}}, set()),
        ({"model": {"uri": "pvc://weights/a.gguf"}}, {"weights"}),
        ({"model": {"uri": "hf://org/repo", "cache": {"claimName": "cache"}}}, {"cache"}),
        (
            {
                "model": {"uri": "pvc://weights"},
                "engine": {"speculative": {"draftModel": {"uri": "pvc://small/b.gguf"}}},
            },
            {"weights", "small"},
        ),
    ],
)
def test_the_claims_that_a_service_names(spec: dict[str, Any], claims: set[str]) -> None:
    catalog = Catalog()
    named = {**raw("a"), "spec": spec}
    catalog.put(named)
    assert catalog.named(PVC, "ns") == {Key.claim("ns", claim) for claim in claims}
    assert catalog.named(PVC, "other") == set()
    for claim in claims:
        assert catalog.users(Key.claim("ns", claim)) == {key("a")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"OVERSPILL_NAMESPACE": ""}, "OVERSPILL_NAMESPACE"),
        ({"OVERSPILL_UP_WINDOW": "soon"}, "OVERSPILL_UP_WINDOW"),
        ({"OVERSPILL_AUTOSCALER_INTERVAL": "0s"}, "OVERSPILL_AUTOSCALER_INTERVAL"),
        ({"OVERSPILL_METRICS_PORT": "http"}, "OVERSPILL_METRICS_PORT"),
        ({"OVERSPILL_RECORDING_RULES": "yes"}, "OVERSPILL_RECORDING_RULES"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, str], words: str) -> None:
    good = {
        "OVERSPILL_NAMESPACE": "ns",
        "OVERSPILL_ENGINE_IMAGE": "x",
        "OVERSPILL_ENGINE_GPU_IMAGE": "y",
    }
    assert Settings.from_environment(good).url == "http://overspill-gateway.ns.svc/v1"
    other = Settings.from_environment({**good, "OVERSPILL_GATEWAY_PORT": "8080"})
    assert other.url == "http://overspill-gateway.ns.svc:8080/v1"
    told = Settings.from_environment({**good, "OVERSPILL_SCRAPE_NAMESPACES": "monitoring, infra,"})
    assert told.scrape_namespaces == ("monitoring", "infra")
    with pytest.raises(SettingsError, match=words):
        Settings.from_environment({**good, **change})
