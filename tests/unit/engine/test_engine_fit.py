"""Does it fit, with which numbers in the message, and do the remedies work?"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.engine import llamacpp_memory, vllm_memory
from overspill.engine.fit import Formula, Room, misfit, remedies, room
from overspill.engine.llamacpp import steps
from overspill.engine.options import Accelerator, Options
from overspill.engine.shape import Shape

GIB = 1 << 30
# Qwen3-8B in bfloat16: 36 layers of 8 KV heads of 128.
QWEN = Shape(
    weights=16_381_000_000,
    layers=36,
    kv_heads=8,
    full=36 * 8 * 128 * 2,
    hidden=4096,
    feed_forward=12288,
    vocabulary=151_936,
    context=40_960,
)
OPTIONS = Options(Path("/m"), "chat", context_length=16384, max_sequences=64)
L4 = Accelerator("NVIDIA-L4", 1, 24 * GIB)


def llama(*shapes: Shape) -> Formula:
    return lambda options: llamacpp_memory.need(options, steps(options), shapes)


def vllm(*shapes: Shape) -> Formula:
    return lambda options: vllm_memory.need(options, shapes)


def test_the_cache_of_a_known_model() -> None:
    need = llama(QWEN)(OPTIONS)
    assert need.cache == 64 * 16384 * 147_456  # bytes a token: 2 × 36 × 8 × 128 × 2
    assert (need.sequences, need.tokens) == (64, 16384)


@pytest.mark.parametrize(
    ("formula", "changes", "factor"),
    [
        (llama(QWEN), {"kv_cache_dtype": "int8"}, 34 / 64),
        (llama(QWEN), {"kv_cache_dtype": "bf16"}, 1),
        (llama(QWEN), {"max_sequences": 32}, 1 / 2),
        (llama(QWEN), {"tensor_parallel": 2}, 1 / 2),
        (llama(QWEN), {"context_length": None}, 40_960 / 16384 / 64),  # one, shared by all
        (llama(QWEN, QWEN), {}, 2),  # a draft model has a cache of its own
        (vllm(QWEN), {"kv_cache_dtype": "fp8"}, 1 / 2 / 64),  # one sequence must fit
        (vllm(QWEN), {"tensor_parallel": 4}, 1 / 4 / 64),
        (vllm(QWEN), {"tensor_parallel": 16}, 1 / 8 / 64),  # 8 KV heads: each of 16 holds one
        (vllm(QWEN), {"pipeline_parallel": 2}, 1 / 2 / 64),
    ],
)
def test_what_makes_the_cache_smaller(
    formula: Formula, changes: dict[str, object], factor: float
) -> None:
    whole = llama(QWEN)(OPTIONS).cache
    assert formula(replace(OPTIONS, **changes)).cache == pytest.approx(whole * factor)  # type: ignore[arg-type]


def test_a_windowed_layer_keeps_its_window_and_one_step() -> None:
    gemma = Shape(0, 18, 1, full=3 * 512, windowed=15 * 512, window=512)
    options = Options(Path("/m"), "chat", context_length=2048, max_sequences=4)
    assert llama(gemma)(options).cache == (24 + 45) << 20  # as llama.cpp says of Gemma 3 270M


def test_weights_that_are_quantised_while_they_load() -> None:
    half = vllm(QWEN)(replace(OPTIONS, quantization="fp8")).weights
    assert QWEN.weights / 2 < half < QWEN.weights * 0.6
    stored = replace(QWEN, quantised=True)
    assert vllm(stored)(replace(OPTIONS, quantization="fp8")).weights == QWEN.weights


def test_the_message_has_numbers_and_remedies() -> None:
    space = room(L4, None, 1.0, 1)
    assert space is not None
    text = misfit(llama(QWEN), replace(OPTIONS, accelerator=L4), space, "int8")
    assert text == (
        "needs 159.6 GiB (weights 15.3, KV cache 144.0 at 64 x 16384 tokens, overhead 0.34), "
        "NVIDIA-L4 has 24.0; lower model.contextLength to 768, "
        "or lower engine.batching.maxSequences to 3, "
        "or set engine.parallelism.tensor to 8 and resources.accelerator.count to 8"
    )


def test_a_model_whose_weights_are_too_large() -> None:
    space = Room(8.0 * GIB, "NVIDIA-T4", accelerator=True)
    found = list(remedies(vllm(QWEN), replace(OPTIONS, context_length=None), space, "fp8"))
    assert found == [
        "set engine.parallelism.tensor to 4 and resources.accelerator.count to 4",
    ]


def test_on_cpus_more_memory_is_a_remedy_that_is_enough() -> None:
    options = replace(OPTIONS, max_sequences=1, context_length=1024)
    text = misfit(llama(QWEN), options, Room(8.0 * GIB, "the container (resources.memory)"), "int8")
    assert text is not None
    (memory,) = re.findall(r"raise resources\.memory to (\d+)Mi", text)
    assert misfit(llama(QWEN), options, Room(int(memory) << 20, "x"), "int8") is None


@pytest.mark.parametrize(
    ("accelerator", "limit", "expected"),
    [
        (None, None, None),
        (None, GIB, GIB),
        (Accelerator("NVIDIA-L4", 1, None), GIB, None),  # the container's limit says nothing
        (L4, GIB, 12 * GIB),
    ],
)
def test_the_room_that_counts(
    accelerator: Accelerator | None, limit: int | None, expected: float | None
) -> None:
    found = room(accelerator, limit, 0.5, 1)
    assert (found and found.size) == expected


shapes = st.builds(
    Shape,
    weights=st.integers(0, 200 * GIB),
    layers=st.just(32),
    kv_heads=st.sampled_from([1, 2, 8, 32]),
    full=st.integers(0, 1 << 18),
    windowed=st.integers(0, 1 << 18),
    window=st.integers(0, 8192),
    hidden=st.integers(64, 16384),
    feed_forward=st.integers(64, 65536),
    vocabulary=st.integers(256, 300_000),
    context=st.integers(0, 1 << 20),
)
options = st.builds(
    lambda **fields: replace(OPTIONS, **fields),
    context_length=st.none() | st.integers(128, 1 << 20),
    max_sequences=st.integers(1, 256),
    kv_cache_dtype=st.sampled_from(["auto", "fp16", "int8"]),
    tensor_parallel=st.sampled_from([1, 2, 4]),
    pipeline_parallel=st.sampled_from([1, 2]),
)
FIELDS = {
    "model.contextLength": "context_length",
    "engine.batching.maxSequences": "max_sequences",
    "engine.kvCache.dtype": "kv_cache_dtype",
    "engine.quantization": "quantization",
    "engine.parallelism.tensor": "tensor_parallel",
}


@given(shapes, options, st.integers(1 << 20, 100 * GIB), st.sampled_from([llama, vllm]))
def test_every_remedy_works(shape: Shape, chosen: Options, size: int, engine: object) -> None:
    formula = engine(shape)  # type: ignore[operator]
    space = Room(size, "device", accelerator=True)
    if misfit(formula, chosen, space, "int8") is None:
        assert formula(chosen).total <= size
        return
    for remedy in remedies(formula, chosen, space, "int8"):
        field, value = re.findall(r"([\w.]+) to (\w+)", remedy)[0]
        changed = {FIELDS[field]: int(value) if value.isdecimal() else value}
        assert formula(replace(chosen, **changed)).total <= size, remedy
