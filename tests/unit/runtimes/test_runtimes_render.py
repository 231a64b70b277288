"""What a service is rendered to: golden files, and that no value changes the structure."""

import copy
import json
from typing import Any

import golden
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.runtime import InferenceRuntime
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
from overspill.runtimes.storage import model_path

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


OWN = golden.runtime(args=["--model", "$(MODEL_PATH)"], metrics={"running": "r"})
HF = {"uri": "hf://a/b", "secretRef": {"name": "hub"}, "cache": {"claimName": "models"}}


def rendered(subject: InferenceService, custom: InferenceRuntime | None = None) -> list[Any]:
    return render(runtime_of(subject, custom), subject, CONTEXT)


def kubelet(text: str, environment: dict[str, str]) -> str:
    """What the kubelet makes of a word of a container's command, args or env.

    https://github.com/kubernetes/kubernetes/blob/v1.35.0/third_party/forked/golang/expansion/expand.go
    """
    out, at = "", 0
    while at < len(text):
        following = text[at + 1 : at + 2]
        if text[at] != "$" or not following:
            out, at = out + text[at], at + 1
        elif following == "$":
            out, at = out + "$", at + 2
        elif following == "(" and ")" in text[at + 2 :]:
            end = text.index(")", at + 2)
            name = text[at + 2 : end]
            out, at = out + environment.get(name, f"$({name})"), end + 1
        else:
            out, at = out + "$" + ("" if following == "(" else following), at + 2
            out += "(" if following == "(" else ""
    return out


@pytest.mark.parametrize("model", [None, HF], ids=["volume", "loaded"])
@pytest.mark.parametrize("runtime", ["llamacpp", "vllm", "my-engine"])
@given(
    note=NASTY,
    args=st.lists(NASTY.filter(bool).map(lambda text: text[:256]), max_size=4),
    value=NASTY,
    affinity=st.dictionaries(NASTY, FREE, max_size=3),
)
def test_no_value_changes_the_structure(
    runtime: str, model: Any, note: str, args: list[str], value: str, affinity: Any
) -> None:
    others = {"model": model} if model else {}
    plain = rendered(golden.service(engine={"runtime": runtime}, **others), OWN)
    nasty = golden.service(
        engine={"runtime": runtime, "args": args, "env": [{"name": "NOTE", "value": value}]},
        pod={"annotations": {"example.com/note": note}, "affinity": affinity},
        **others,
    )
    objects = rendered(nasty, OWN)
    assert [o["kind"] for o in objects] == list(CHILD_KINDS)
    assert objects[:-1] == plain[:-1]
    template = objects[-1]["spec"]["template"]
    assert template["metadata"].pop("annotations") == {"example.com/note": note}
    assert template["spec"].pop("affinity", {}) == affinity
    [engine] = template["spec"]["containers"]
    env = {e["name"]: e["value"] for e in engine["env"]}
    assert kubelet(env.pop("NOTE"), env) == value
    if runtime == "my-engine":
        written = [kubelet(word, env) for word in engine["args"]]
        assert written[2:] == args
        engine["args"] = engine["args"][:2]
    elif args:
        assert json.loads(kubelet(env.pop("OVERSPILL_ENGINE_ARGS"), env)) == args
    engine["env"] = [e for e in engine["env"] if e["name"] in env]
    assert objects[-1] == plain[-1]


WORDS = NASTY | st.lists(
    st.sampled_from(["$", "(", ")", "PORT", "HOME", "MODEL_PATH", "$(PORT)", "$(MODEL_PATH)", "x"])
).map("".join)


@given(command=st.lists(WORDS, max_size=3), args=st.lists(WORDS, max_size=3), value=WORDS)
def test_a_users_own_engine_gets_its_words_with_the_placeholders_replaced(
    command: list[str], args: list[str], value: str
) -> None:
    """Whatever variables the container has: nothing but our placeholders is ever replaced."""
    custom = golden.runtime(command=command, args=args, env=[{"name": "V", "value": value}])
    objects = rendered(golden.service(engine={"runtime": "my-engine"}), custom)
    assert [o["kind"] for o in objects] == list(CHILD_KINDS)
    [engine] = objects[-1]["spec"]["template"]["spec"]["containers"]
    reachable = {"PORT": "no", "HOME": "no", "MODEL_PATH": "no", "x": "no", "": "no"}
    for given_, got in ((command, engine.get("command", [])), (args, engine.get("args", []))):
        replaced = [w.replace("$(PORT)", "8000").replace("$(MODEL_PATH)", "/model") for w in given_]
        assert [kubelet(word, reachable) for word in got] == replaced
    env = {e["name"]: e["value"] for e in engine["env"]}
    assert kubelet(env["V"], reachable) == value


@pytest.mark.parametrize(
    ("spec", "runtime"),
    [
        ({}, "llamacpp"),
        ({"resources": {"accelerator": {}}}, "vllm"),
        ({"engine": {"runtime": "vllm"}}, "vllm"),
        ({"engine": {"runtime": "llamacpp"}, "resources": {"accelerator": {}}}, "llamacpp"),
        ({"engine": {"runtime": "my-engine"}}, "my-engine"),
    ],
)
def test_auto_is_vllm_with_an_accelerator(spec: Any, runtime: str) -> None:
    service = golden.service(**spec)
    assert service.runtime == runtime
    assert runtime_of(service, OWN).name == runtime
    assert service.max_sequences == {"llamacpp": 4, "vllm": 64, "my-engine": 8}[runtime]


def test_a_runtime_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RenderError, match="no InferenceRuntime my-engine"):
        runtime_of(golden.service(engine={"runtime": "my-engine"}))


GPU = {"resources": {"accelerator": {"count": 4}}}


@pytest.mark.parametrize(
    ("runtime", "engine", "lacking"),
    [
        ("llamacpp", {}, []),
        (
            "llamacpp",
            {"quantization": "fp8", "kvCache": {"dtype": "fp8"}},
            ["quantization", "kvCache.dtype"],
        ),
        ("llamacpp", {"kvCache": {"dtype": "int8", "hostOffload": "1Gi"}}, []),
        ("llamacpp", {"parallelism": {"tensor": 2, "pipeline": 2}}, ["parallelism"]),
        ("llamacpp", {"parallelism": {"pipeline": 4}, "speculative": {"method": "ngram"}}, []),
        ("vllm", {"quantization": "fp8", "kvCache": {"dtype": "fp8"}}, []),
        ("vllm", {"parallelism": {"tensor": 2, "pipeline": 2}}, []),
        ("vllm", {"quantization": "int8"}, ["quantization"]),
        ("vllm", {"quantization": "int4"}, ["quantization"]),
        ("my-engine", {}, []),
        (
            "my-engine",
            {
                "quantization": "fp8",
                "kvCache": {"dtype": "fp8", "hostOffload": "1Gi"},
                "batching": {"maxBatchedTokens": 64, "maxSequences": 2},
                "speculative": {"method": "ngram"},
                "parallelism": {"tensor": 4},
            },
            [
                "quantization", "kvCache.dtype", "kvCache.hostOffload",
                "batching.maxBatchedTokens", "speculative", "parallelism",
            ],
        ),
        ("my-engine", {"kvCache": {"prefixCaching": False}}, ["kvCache.prefixCaching"]),
    ],
)  # fmt: skip
def test_an_option_that_an_engine_lacks_is_named_with_a_remedy(
    runtime: str, engine: Any, lacking: list[str]
) -> None:
    service = golden.service(engine={"runtime": runtime, **engine}, **GPU)
    told = runtime_of(service, OWN).unsupported(service)
    assert [line.split(":")[0].split(" ")[0] for line in told] == [f"engine.{o}" for o in lacking]
    assert all(";" in line for line in told)


@pytest.mark.parametrize(
    ("args", "length", "words"),
    [
        (["$(CONTEXT_LENGTH)"], None, "is required"),
        (["--ctx=$(CONTEXT_LENGTH)"], 4096, ""),
        ([], 4096, "has no effect"),
        ([], None, ""),
    ],
)
def test_a_context_length_is_neither_dropped_nor_made_up(
    args: list[str], length: int | None, words: str
) -> None:
    model = {"uri": "pvc://m", **({"contextLength": length} if length else {})}
    service = golden.service(model=model, engine={"runtime": "my-engine"})
    told = runtime_of(service, golden.runtime(args=args)).unsupported(service)
    assert words in "".join(told)
    assert bool(told) is bool(words)


def test_only_what_is_loaded_may_go_out_and_only_the_loader_has_the_secret() -> None:
    closed, opened = rendered(golden.service()), rendered(golden.service(model=HF))
    policies = [next(o for o in os if o["kind"] == "NetworkPolicy") for os in (closed, opened)]
    assert policies[0]["spec"]["egress"] == []
    assert [p["port"] for rule in policies[1]["spec"]["egress"] for p in rule["ports"]] == [
        53, 53, 443,
    ]  # fmt: skip
    pod = opened[-1]["spec"]["template"]["spec"]
    assert not any(
        "secret" in volume for volume in closed[-1]["spec"]["template"]["spec"]["volumes"]
    )
    [secret] = [volume["name"] for volume in pod["volumes"] if "secret" in volume]
    holders = {
        container["name"]
        for container in (*pod["initContainers"], *pod["containers"])
        if any(mount["name"] == secret for mount in container["volumeMounts"])
    }
    assert holders == {"loader"}
    shared = [
        {m["name"] for m in c["volumeMounts"]} for c in (*pod["initContainers"], *pod["containers"])
    ]
    assert set.intersection(*shared) == {"model"}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"secretRef": {"name": "other"}}, True),
        ({"endpoint": "https://hub.example.com"}, False),
        ({"uri": "hf://a/c"}, False),
        ({"uri": "hf://a/b/x.gguf", "sha256": "0" * 64}, False),
    ],
)
def test_a_cache_folder_is_that_of_one_source(change: Any, same: bool) -> None:
    one, other = (model_path(golden.service(model=m).spec.model) for m in (HF, {**HF, **change}))
    assert (one == other) is same
    assert one.count("/") == 2


@pytest.mark.parametrize("runtime", ["llamacpp", "vllm", "my-engine"])
@pytest.mark.parametrize("model", [None, HF], ids=["volume", "loaded"])
def test_pods_fit_the_restricted_profile(runtime: str, model: Any) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    subject = golden.service(engine={"runtime": runtime}, **({"model": model} if model else {}))
    pod = rendered(subject, OWN)[-1]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= set(container["resources"])


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


def test_a_value_that_nests_too_deep_is_refused_with_its_remedy() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = {"a": deep}
    with pytest.raises(RenderError, match=r"spec\.pod\.affinity, nests too deep"):
        rendered(golden.service(pod={"affinity": {"podAffinity": deep}}))
