"""Neutral options → vLLM's flags; that they are vLLM's own is shown by `make test-vllm`."""

import json
from pathlib import Path

import pytest

from overspill.api import metrics
from overspill.engine.errors import InvalidOptions
from overspill.engine.llamacpp import LlamaCpp
from overspill.engine.options import Options, Speculative
from overspill.engine.vllm import ENVIRONMENT, RESERVED, VLLM, flags

OPTIONS = Options(model_path=Path("/model"), served_name="chat")
DEFAULTS = [
    "--host=0.0.0.0",
    "--port=8000",
    "--served-model-name=chat",
    "--load-format=safetensors",
    "--max-num-seqs=4",
    "--tensor-parallel-size=1",
    "--pipeline-parallel-size=1",
    "--enable-prefix-caching",
    "--no-trust-remote-code",
    "--disable-uvicorn-access-log",
    "--disable-fastapi-docs",
]
GIB = 1 << 30


def given(**options: object) -> Options:
    return Options(**{**vars(OPTIONS), **options})  # type: ignore[arg-type]


def added(**options: object) -> list[str]:
    """The flags that `options` add to the defaults."""
    return [flag for flag in flags(given(**options)) if flag not in DEFAULTS]


def test_defaults() -> None:
    assert flags(OPTIONS) == DEFAULTS


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"context_length": 16384}, ["--max-model-len=16384"]),
        ({"max_sequences": 64}, ["--max-num-seqs=64"]),
        ({"max_batched_tokens": 8192}, ["--max-num-batched-tokens=8192"]),
        ({"quantization": "fp8"}, ["--quantization=fp8_per_tensor"]),
        ({"kv_cache_dtype": "fp16"}, ["--kv-cache-dtype=float16"]),
        ({"kv_cache_dtype": "bf16"}, ["--kv-cache-dtype=bfloat16"]),
        ({"kv_cache_dtype": "fp8"}, ["--kv-cache-dtype=fp8"]),
        ({"kv_cache_dtype": "int8"}, ["--kv-cache-dtype=int8_per_token_head"]),
        ({"prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"kv_host_offload": 8 * GIB}, ["--kv-offloading-size=8.0"]),
        ({"kv_host_offload": 1536 << 20}, ["--kv-offloading-size=1.5"]),
        ({"tensor_parallel": 2}, ["--tensor-parallel-size=2"]),
        ({"pipeline_parallel": 2}, ["--pipeline-parallel-size=2"]),
        ({"port": 9000, "served_name": "x"}, ["--port=9000", "--served-model-name=x"]),
        ({"cpu_threads": 2}, []),  # a GPU's work is not done by these
        (
            {
                "engine_args": (
                    ("enforce_eager", "true"),
                    ("seed", "7"),
                    ("async_scheduling", "false"),
                )
            },
            ["--enforce-eager", "--seed=7", "--no-async-scheduling"],
        ),
        (
            {"engine_args": (("chat_template_content_format", "string"),)},
            ["--chat-template-content-format=string"],
        ),
    ],
)
def test_each_option(options: dict[str, object], expected: list[str]) -> None:
    assert added(**options) == expected


def test_tokens_guessed_from_the_prompt() -> None:
    (flag,) = added(speculative=Speculative("ngram", 6))
    name, _, config = flag.partition("=")
    assert name == "--speculative-config"
    assert json.loads(config) == {
        "method": "ngram",
        "num_speculative_tokens": 6,
        "prompt_lookup_max": 4,
    }


def test_tokens_guessed_by_a_draft_model(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    (flag,) = added(speculative=Speculative("draft", 3, tmp_path))
    assert json.loads(flag.partition("=")[2]) == {
        "method": "draft_model",
        "model": str(tmp_path),
        "num_speculative_tokens": 3,
    }


def test_a_users_own_arguments_come_last() -> None:
    assert flags(given(engine_args=(("max_model_len", "9"),)))[-1] == "--max-model-len=9"


@pytest.mark.parametrize("wanted", ["int8", "int4"])
def test_what_vllm_lacks_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidOptions, match=rf"quantization {wanted}: .* and quantization none"):
        flags(given(quantization=wanted))


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_arguments_are_refused(name: str) -> None:
    with pytest.raises(InvalidOptions, match="is set or refused by Overspill"):
        flags(given(engine_args=((name.replace("-", "_"), "x"),)))


@pytest.mark.parametrize(
    "name",
    [
        "trust_remote_cod",  # vLLM's parser takes unique beginnings
        "trust_remote",
        "no_trust_remote_code",
        "middlew",
        "profiler_config.profiler",  # and parts of an argument
        "api.key",
        "",
        "no_",
    ],
)
def test_other_spellings_of_reserved_arguments_are_refused(name: str) -> None:
    with pytest.raises(InvalidOptions):
        flags(given(engine_args=((name, "true"),)))


def test_nothing_is_fetched_reported_or_run_for_a_model() -> None:
    assert ENVIRONMENT["HF_HUB_OFFLINE"] == ENVIRONMENT["TRANSFORMERS_OFFLINE"] == "1"
    assert ENVIRONMENT["VLLM_NO_USAGE_STATS"] == "1"
    assert ENVIRONMENT["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "0"


def test_the_model_comes_before_the_flags() -> None:
    launch = VLLM().launch(OPTIONS, Path("/model/a"), None)
    assert launch.command[-len(DEFAULTS) - 2 :] == ("serve", "/model/a", *DEFAULTS)


def test_the_autoscaler_reads_the_gauges_that_the_drain_reads() -> None:
    llama, vllm = LlamaCpp(), VLLM()
    assert (llama.running, llama.waiting) == (metrics.LLAMACPP_RUNNING, metrics.LLAMACPP_WAITING)
    assert vllm.running, vllm.waiting
