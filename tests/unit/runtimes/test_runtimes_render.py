"""What a service is rendered to: golden files, and that no value changes the structure."""

import copy
from typing import Any

import golden
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.service import InferenceService
from overspill.runtimes import (
    RenderContext,
    RenderError,
    child_name,
    render,
    runtime_of,
    templating,
)
from overspill.runtimes.base import CHILD_KINDS

CONTEXT = RenderContext(**golden.CONTEXT)
# What YAML, JSON, Jinja or a shell could take for syntax.
NASTY = st.text(max_size=60) | st.sampled_from(
    [
        "{{ 7*7 }}", "{% raw %}", "---\nkind: Pod", "a: b", "- x", "# no", "!!python/object:x",
        "*a", "&a", "'", '"', "\\", "null", "~", "yes", "1e3", "0x1f", ".inf", "\x7f\x85\u2028",
        "\ufeff", "😀", "\t", "$(HOME)", "$$", "%YAML 1.2", "<<", "?", "x" * 300,
    ]
)  # fmt: skip
ATOM = (
    NASTY
    | st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
)
FREE = st.recursive(
    ATOM, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


def deployment(service: InferenceService, context: RenderContext = CONTEXT) -> dict[str, Any]:
    return render(runtime_of(service), service, context)[-1]


def pod_of(service: InferenceService) -> dict[str, Any]:
    return deployment(service)["spec"]["template"]


@pytest.mark.parametrize("case", golden.cases())
def test_golden(case: str) -> None:
    expected = (golden.FOLDER / f"{case}.out.yaml").read_text()
    assert golden.render(case) == expected, "run `make generate` and look at the diff"


@given(FREE)
def test_json_means_the_same_in_yaml(value: Any) -> None:
    (found,) = yaml.load_all(templating.tojson(value), templating._Loader)
    assert found == value


@given(NASTY, st.lists(NASTY.filter(bool), max_size=4), st.dictionaries(NASTY, FREE, max_size=3))
def test_no_value_changes_the_structure(note: str, args: list[str], affinity: Any) -> None:
    plain = render(runtime_of(golden.service()), golden.service(), CONTEXT)
    nasty = golden.service(
        engine={"args": [arg[:256] for arg in args]},
        pod={"annotations": {"example.com/note": note}, "affinity": affinity},
    )
    objects = render(runtime_of(nasty), nasty, CONTEXT)
    assert [o["kind"] for o in objects] == list(CHILD_KINDS)
    assert objects[:-1] == plain[:-1]
    template = objects[-1]["spec"]["template"]
    assert template["metadata"].pop("annotations") == {"example.com/note": note}
    assert template["spec"].pop("affinity", {}) == affinity
    env = template["spec"]["containers"][0]["env"]
    template["spec"]["containers"][0]["env"] = [
        e for e in env if e["name"] != "OVERSPILL_ENGINE_ARGS"
    ]
    assert objects[-1] == plain[-1]


def test_dollars_are_safe_from_the_kubelet() -> None:
    env = pod_of(golden.service(engine={"args": ["a=$(HOME)"]}))["spec"]["containers"][0]["env"]
    value = next(e["value"] for e in env if e["name"] == "OVERSPILL_ENGINE_ARGS")
    assert value == '["a=$$(HOME)"]'


def test_a_users_labels_do_not_replace_ours() -> None:
    service = golden.service()
    pod = service.spec.pod.model_copy(update={"labels": {"overspill.dev/service": "other"}})
    spec = service.spec.model_copy(update={"pod": pod})
    labels = pod_of(service.model_copy(update={"spec": spec}))["metadata"]["labels"]
    assert labels["overspill.dev/service"] == "chat"


@pytest.mark.parametrize(
    ("spec", "unplaceable", "surge", "roll", "drain"),
    [
        ({}, 0, 1, 0, 1),
        ({}, 2, 1, 2, 3),
        ({"resources": {"accelerator": {}}}, 0, 0, 1, 1),
        ({"resources": {"accelerator": {}}}, 1, 0, 2, 2),
        ({"rollout": {"surge": 0}}, 0, 0, 1, 1),
    ],
)
def test_rolls_and_drains_never_wait_for_a_place(
    spec: Any, unplaceable: int, surge: int, roll: int, drain: int
) -> None:
    context = RenderContext(**golden.CONTEXT, unplaceable=unplaceable)
    service = golden.service(**spec)
    objects = {o["kind"]: o for o in render(runtime_of(service), service, context)}
    rolling = objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": surge, "maxUnavailable": roll}
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == drain


def test_the_grace_period_covers_leaving_draining_and_ending() -> None:
    assert pod_of(golden.service())["spec"]["terminationGracePeriodSeconds"] == 5 + 120 + 10


@pytest.mark.parametrize(
    ("replicas", "field"), [(None, {}), (0, {"replicas": 0}), (3, {"replicas": 3})]
)
def test_the_count_is_left_out_unless_given(replicas: int | None, field: dict[str, int]) -> None:
    spec = deployment(golden.service(), RenderContext(**golden.CONTEXT, replicas=replicas))["spec"]
    assert {k: v for k, v in spec.items() if k == "replicas"} == field


@pytest.mark.parametrize(
    "change",
    [
        lambda objs: objs.append({"kind": "Pod", "metadata": objs[0]["metadata"]}),
        lambda objs: objs.pop(),
        lambda objs: objs[0]["metadata"].update(namespace="kube-system"),
        lambda objs: objs[0]["metadata"].update(name="other"),
        lambda objs: objs[0]["metadata"].pop("ownerReferences"),
        lambda objs: objs.append("text"),
    ],
)
def test_anything_but_the_expected_objects_is_refused(change: Any) -> None:
    service = golden.service()
    objects = render(runtime_of(service), service, CONTEXT)
    expected = [(kind, child_name("chat")) for kind in CHILD_KINDS]
    owner = {"namespace": "team-a", "reference": service.reference()}
    templating.check(objects, expected, owner)
    change(objects)
    with pytest.raises(RenderError):
        templating.check(objects, expected, owner)


def test_slots() -> None:
    assert golden.service().max_sequences == 4
    assert golden.service(engine={"batching": {"maxSequences": 16}}).max_sequences == 16


def test_what_was_rendered_once_is_not_rendered_again_nor_changed_by_its_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads: list[Any] = []
    load_all = yaml.load_all
    monkeypatch.setattr(yaml, "load_all", lambda *a, **k: loads.append(a) or load_all(*a, **k))
    templating._rendered.cache_clear()
    once, other = (golden.service(engine={"args": [arg]}) for arg in ("a=1", "a=2"))
    first = deployment(once)
    expected = copy.deepcopy(first)
    first["spec"].clear()
    assert deployment(once) == expected
    assert len(loads) == 1
    assert deployment(other) != expected
