"""Neutral options → llama.cpp's settings, and the typing of a user's own arguments.

The typing is shown on an object of llama.cpp's shapes, the settings on its own. What they do is
shown by tests/engine.
"""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest
import xllamacpp

from overspill.engine import llamacpp
from overspill.engine import params as parameters
from overspill.engine.errors import InvalidOptions
from overspill.engine.options import Options, Speculative

MODEL = Path("/model/a.gguf")
OPTIONS = Options(model_path=Path("/model"), served_name="chat")
GIB = 1 << 30


class ggml_type(Enum):  # noqa: N801 - as in xllamacpp
    GGML_TYPE_F16 = 1
    GGML_TYPE_Q8_0 = 8


@dataclass
class Threads:
    n_threads: int = -1


@dataclass
class ModelFile:
    path: str = ""


@dataclass
class Params:
    n_batch: int = 2048
    rope_freq_scale: float = 0.0
    embedding: bool = False
    chat_template: str = ""
    cache_type_k: ggml_type = ggml_type.GGML_TYPE_F16
    types: list[ggml_type] = field(default_factory=lambda: [ggml_type.GGML_TYPE_F16])
    model_alias: set[str] = field(default_factory=set)
    lora_adapters: list[object] = field(default_factory=list)
    default_template_kwargs: dict[str, str] = field(default_factory=dict)
    cpuparams: Threads = field(default_factory=Threads)
    model: ModelFile = field(default_factory=ModelFile)
    port: int = 0


def changed(**options: object) -> dict[str, object]:
    """The settings that differ from the defaults' when `options` are given."""
    default = llamacpp.settings(OPTIONS, MODEL, None)
    given = llamacpp.settings(
        Options(**{**vars(OPTIONS), **options}),  # type: ignore[arg-type]
        MODEL,
        None,
    )
    return {name: value for name, value in given.items() if default.get(name) != value}


def test_defaults() -> None:
    chosen = llamacpp.settings(OPTIONS, MODEL, None)
    assert chosen["model.path"] == "/model/a.gguf"
    assert chosen["model_alias"] == ["chat"]
    assert chosen["port"] == 8000
    assert chosen["endpoint_metrics"] is True
    assert chosen["fit_params"] is False
    assert (chosen["n_ctx"], chosen["kv_unified"]) == (0, True)  # the model's own, shared
    assert "cpuparams.n_threads" not in chosen


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"context_length": 1024}, {"n_ctx": 4096, "kv_unified": False}),
        ({"max_sequences": 8}, {"n_parallel": 8, "n_threads_http": 80}),
        ({"max_batched_tokens": 128}, {"n_batch": 128, "n_ubatch": 128}),
        ({"max_batched_tokens": 4096}, {"n_batch": 4096, "n_ubatch": 512}),
        (
            {"max_sequences": 100},  # one token of each must fit into a step
            {"n_parallel": 100, "n_threads_http": 264, "n_batch": 100, "n_ubatch": 100},
        ),
        (
            {"engine_args": (("embedding", "true"),), "context_length": 2048},
            {"n_ctx": 8192, "kv_unified": False, "n_batch": 2048, "n_ubatch": 2048},
        ),
        ({"prefix_caching": False}, {"cache_prompt": False, "cache_ram_mib": 0}),
        ({"cpu_threads": 2}, {"cpuparams.n_threads": 2, "cpuparams_batch.n_threads": 2}),
        ({"served_name": "x"}, {"model_alias": ["x"]}),
        ({"port": 9}, {"port": 9}),
        ({"kv_cache_dtype": "fp16"}, {}),
        ({"kv_cache_dtype": "bf16"}, {"cache_type_k": "bf16", "cache_type_v": "bf16"}),
        ({"kv_cache_dtype": "int8"}, {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}),
        ({"kv_host_offload": 3 * GIB}, {"cache_ram_mib": 3072}),
        (
            {"kv_host_offload": GIB, "prefix_caching": False},
            {"cache_prompt": False, "cache_ram_mib": 0},
        ),
        (
            {"speculative": Speculative("ngram", 6)},
            {
                "speculative.types": ["ngram_map_k"],
                "speculative.ngram_map_k.size_n": 4,
                "speculative.ngram_map_k.size_m": 6,
            },
        ),
        ({"tensor_parallel": 2}, {"split_mode": "row"}),
        ({"pipeline_parallel": 4}, {"split_mode": "layer"}),
    ],
)
def test_each_option(options: dict[str, object], expected: dict[str, object]) -> None:
    assert changed(**options) == expected


def test_a_draft_model_is_one_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").touch()
    assert changed(speculative=Speculative("draft", 3, tmp_path)) == {
        "speculative.types": ["draft_simple"],
        "speculative.draft.mparams.path": str(tmp_path / "small.gguf"),
        "speculative.draft.n_max": 3,
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantization": "int4"}, "quantization int4: llama.cpp serves the weights as the GGUF"),
        ({"kv_cache_dtype": "fp8"}, "no fp8 KV cache; give int8"),
        ({"tensor_parallel": 2, "pipeline_parallel": 2}, "not by both"),
    ],
)
def test_what_llamacpp_lacks_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidOptions, match=words):
        changed(**options)


def test_each_sequence_has_the_whole_context() -> None:
    options = Options(Path("/m"), "chat", context_length=1000, max_sequences=3)
    assert llamacpp.settings(options, MODEL, None)["n_ctx"] == 3000


@pytest.mark.parametrize(
    ("spare", "mib"), [(None, 8192), (0, 0), (512 << 20, 128), (8 * GIB, 2048), (99 * GIB, 8192)]
)
def test_kept_prompts_stay_within_a_share_of_spare_memory(spare: int | None, mib: int) -> None:
    assert llamacpp.settings(OPTIONS, MODEL, spare)["cache_ram_mib"] == mib


def test_every_setting_is_llamacpps_own(tmp_path: Path) -> None:
    (tmp_path / "draft.gguf").touch()
    for speculative in (Speculative("ngram", 3), Speculative("draft", 3, tmp_path)):
        options = {"cpu_threads": 2, "kv_cache_dtype": "int8", "tensor_parallel": 2}
        given = Options(**{**vars(OPTIONS), **options, "speculative": speculative})  # type: ignore[arg-type]
        params = xllamacpp.CommonParams()
        parameters.apply(params, llamacpp.settings(given, MODEL, None))
        assert params.model.path == str(MODEL)
        assert params.cache_type_v == xllamacpp.ggml_type.GGML_TYPE_Q8_0.value
        assert params.split_mode == xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_ROW.value
        (kind,) = params.speculative.types
        assert kind.name.endswith("DRAFT_SIMPLE" if speculative.model else "NGRAM_MAP_K")


def test_settings_reach_nested_objects_and_sets() -> None:
    params = Params()
    parameters.apply(
        params,
        {
            "model.path": "/a",
            "model_alias": ["x"],
            "cpuparams.n_threads": 2,
            "n_batch": 64,
            "cache_type_k": "q8_0",
            "types": ["q8_0"],
        },
    )
    assert params == Params(
        model=ModelFile("/a"),
        model_alias={"x"},
        cpuparams=Threads(2),
        n_batch=64,
        cache_type_k=ggml_type.GGML_TYPE_Q8_0,
        types=[ggml_type.GGML_TYPE_Q8_0],
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n_batch", "64", 64),
        ("rope_freq_scale", "0.5", 0.5),
        ("embedding", "true", True),
        ("chat_template", "{{ x }}", "{{ x }}"),
        ("cache_type_k", "q8_0", ggml_type.GGML_TYPE_Q8_0),
        ("cache_type_k", "GGML_TYPE_Q8_0", ggml_type.GGML_TYPE_Q8_0),
        ("default_template_kwargs", '{"a": "b"}', {"a": "b"}),
    ],
)
def test_arguments_take_the_options_type(name: str, text: str, value: object) -> None:
    params = Params()
    parameters.apply_args(params, {name: text})
    assert getattr(params, name) == value


def test_an_argument_reaches_a_nested_option() -> None:
    params = Params()
    parameters.apply_args(params, {"cpuparams.n_threads": "3"})
    assert params.cpuparams.n_threads == 3


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("n_batsh", "1", r"no option 'n_batsh'; did you mean n_batch"),
        ("cpuparams.threads", "1", "no option 'cpuparams.threads'"),
        ("nothing.at.all", "1", "no option 'nothing.at.all'"),
        ("__class__", "1", "no option '__class__'"),
        ("n_batch", "many", "n_batch=many: give a whole number"),
        ("rope_freq_scale", "x", "give a number"),
        ("embedding", "1", "give one of true, false"),
        ("cache_type_k", "q9", "give one of f16, q8_0"),
        ("lora_adapters", "{}", "give a JSON list"),
        ("lora_adapters", "{", "give a JSON list"),
        ("model_alias", "x", "is set by Overspill"),
        ("port", "1", "'port' is set by Overspill; remove it"),
        ("cpuparams", "1", "cannot be set as name=value"),
    ],
)
def test_wrong_arguments_say_what_to_do(name: str, text: str, words: str) -> None:
    with pytest.raises(InvalidOptions, match=words):
        parameters.apply_args(Params(), {name: text})


@pytest.mark.parametrize("name", sorted(llamacpp.RESERVED | {"offline", "endpoint_slots"}))
def test_reserved_arguments_are_refused(name: str) -> None:
    with pytest.raises(InvalidOptions, match=f"'{name}' is set by Overspill; remove it"):
        parameters.apply_args(Params(), {name: "true"})
