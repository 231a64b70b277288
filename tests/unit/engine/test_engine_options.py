"""Environment variables → options: every field, and a clear refusal of every wrong value."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.engine.errors import InvalidOptions
from overspill.engine.options import Accelerator, Options, Speculative, from_environment

MINIMAL = {"OVERSPILL_MODEL_PATH": "/model"}


def test_only_the_path_is_needed() -> None:
    assert from_environment(MINIMAL) == Options(model_path=Path("/model"), served_name="model")


def test_empty_variables_are_defaults() -> None:
    names = ("SERVED_NAME", "PORT", "CONTEXT_LENGTH", "CPU_THREADS", "DRAIN_SECONDS", "ENGINE_ARGS")
    empty = {f"OVERSPILL_{name}": "" for name in (*names, "PREFIX_CACHING")}
    assert from_environment(MINIMAL | empty) == from_environment(MINIMAL)


def test_every_variable() -> None:
    env = {
        "OVERSPILL_MODEL_PATH": "/model/a.gguf",
        "OVERSPILL_SERVED_NAME": "chat",
        "OVERSPILL_PORT": "9000",
        "OVERSPILL_CONTEXT_LENGTH": "4096",
        "OVERSPILL_MAX_SEQUENCES": "8",
        "OVERSPILL_MAX_BATCHED_TOKENS": "1024",
        "OVERSPILL_QUANTIZATION": "fp8",
        "OVERSPILL_KV_CACHE_DTYPE": "int8",
        "OVERSPILL_PREFIX_CACHING": "false",
        "OVERSPILL_KV_HOST_OFFLOAD": "8589934592",
        "OVERSPILL_SPECULATIVE": '{"method": "draft", "tokens": 5, "model": "/draft"}',
        "OVERSPILL_TENSOR_PARALLEL": "2",
        "OVERSPILL_PIPELINE_PARALLEL": "3",
        "OVERSPILL_ACCELERATOR": "NVIDIA-L4",
        "OVERSPILL_ACCELERATOR_COUNT": "6",
        "OVERSPILL_ACCELERATOR_MEMORY": "24696061952",
        "OVERSPILL_CPU_THREADS": "2",
        "OVERSPILL_DRAIN_SECONDS": "7.5",
        "OVERSPILL_ENGINE_ARGS": '["--cache-type-k=q8_0", "chat_template=a=b"]',
    }
    assert from_environment(env) == Options(
        model_path=Path("/model/a.gguf"),
        served_name="chat",
        port=9000,
        context_length=4096,
        max_sequences=8,
        max_batched_tokens=1024,
        quantization="fp8",
        kv_cache_dtype="int8",
        prefix_caching=False,
        kv_host_offload=8589934592,
        speculative=Speculative("draft", 5, Path("/draft")),
        tensor_parallel=2,
        pipeline_parallel=3,
        accelerator=Accelerator("NVIDIA-L4", 6, 24696061952),
        cpu_threads=2,
        drain_seconds=7.5,
        engine_args=(("cache_type_k", "q8_0"), ("chat_template", "a=b")),
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MODEL_PATH", "", "is not set; give a model file"),
        ("QUANTIZATION", "fp4", "give one of none, fp8, int8, int4"),
        ("KV_CACHE_DTYPE", "q8_0", "give one of auto, fp16"),
        ("KV_HOST_OFFLOAD", "8Gi", "give a whole number"),
        ("TENSOR_PARALLEL", "0", "from 1 to 64"),
        ("ACCELERATOR_MEMORY", "24GB", "give a whole number"),
        ("SPECULATIVE", "ngram", "not JSON with method and tokens"),
        ("SPECULATIVE", "[]", "not JSON with method and tokens"),
        ("SPECULATIVE", '{"method": "eagle", "tokens": 4}', "give ngram or draft"),
        ("SPECULATIVE", '{"method": "ngram", "tokens": 17}', "a number from 1 to 16"),
        ("SPECULATIVE", '{"method": "ngram", "tokens": true}', "a number from 1 to 16"),
        ("SPECULATIVE", '{"method": "draft", "tokens": 4}', "give model with method draft"),
        ("SPECULATIVE", '{"method": "ngram", "tokens": 4, "model": "/m"}', "and only there"),
        ("PORT", "http", "give a whole number"),
        ("PORT", "70000", "from 1 to 65535"),
        ("CONTEXT_LENGTH", "12", "from 128"),
        ("MAX_SEQUENCES", "0", "from 1 to 1024"),
        ("MAX_BATCHED_TOKENS", "1e3", "give a whole number"),
        ("PREFIX_CACHING", "yes", "give true or false"),
        ("CPU_THREADS", "-1", "from 1"),
        ("DRAIN_SECONDS", "2m", "give seconds"),
        ("DRAIN_SECONDS", "nan", "from 0 to 86400"),
        ("DRAIN_SECONDS", "inf", "from 0 to 86400"),
        ("ENGINE_ARGS", "a=b", "is not JSON"),
        ("ENGINE_ARGS", '{"a": 1}', "JSON list"),
        ("ENGINE_ARGS", "[1]", "JSON list"),
    ],
)
def test_wrong_values_name_the_variable(name: str, value: str, words: str) -> None:
    with pytest.raises(InvalidOptions) as refused:
        from_environment(MINIMAL | {f"OVERSPILL_{name}": value})
    assert f"OVERSPILL_{name}" in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize("arg", ["nonsense", "=1", "--=1"])
def test_an_engine_argument_needs_a_name_and_a_value(arg: str) -> None:
    with pytest.raises(InvalidOptions, match="not of the form name=value"):
        from_environment(MINIMAL | {"OVERSPILL_ENGINE_ARGS": f'["{arg}"]'})


@given(st.dictionaries(st.sampled_from(["PORT", "DRAIN_SECONDS", "ENGINE_ARGS"]), st.text()))
def test_any_text_is_taken_or_refused(values: dict[str, str]) -> None:
    env = MINIMAL | {f"OVERSPILL_{name}": text for name, text in values.items()}
    try:
        options = from_environment(env)
    except InvalidOptions:
        return
    assert 1 <= options.port <= 65535
    assert 0 <= options.drain_seconds <= 86_400
