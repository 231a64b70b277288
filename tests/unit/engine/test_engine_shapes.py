"""GGUF headers and config.json → shapes, and that no file whatever stops a start."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.engine import gguf, safetensors
from overspill.engine.shape import Shape, UnknownShape

Pairs = dict[str, object]
TOKENS = "tokenizer.ggml.tokens"
LLAMA: Pairs = {
    "general.architecture": "llama",
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    TOKENS: ["a"] * 49,
}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def encoded(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        case [float(), *_]:
            return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
        case [bool(), *_]:
            return struct.pack("<IIQ", 9, 7, len(value)) + bytes(value)
        case list():
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    raise TypeError(value)


def header(pairs: Pairs) -> bytes:
    body = b"".join(text(key) + encoded(value) for key, value in pairs.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + body


def read(folder: Path, pairs: Pairs) -> Shape:
    file = folder / "m.gguf"
    tokens = {TOKENS: pairs[TOKENS]}  # come last, as in real files
    file.write_bytes(header({**{k: v for k, v in pairs.items() if k != TOKENS}, **tokens}))
    return gguf.read_shape(file)


def test_a_gguf_header(tmp_path: Path) -> None:
    shape = read(tmp_path, LLAMA)
    assert shape == Shape(
        weights=(tmp_path / "m.gguf").stat().st_size,
        layers=30,
        kv_heads=3,
        full=30 * 3 * 64 * 2,
        hidden=576,
        feed_forward=1536,
        vocabulary=49,
        context=8192,
        quantised=True,
    )


@pytest.mark.parametrize(
    ("changes", "full", "windowed"),
    [
        ({"llama.attention.key_length": 128, "llama.attention.value_length": 64}, 30 * 3 * 192, 0),
        ({"llama.attention.head_count_kv": [3] * 10 + [0] * 20}, 10 * 3 * 128, 0),  # state layers
        ({"llama.attention.sliding_window": 512}, 0, 30 * 384),  # nothing says which
        (
            {
                "llama.attention.sliding_window": 512,
                "llama.attention.sliding_window_pattern": [True, True, False] * 10,
            },
            10 * 384,
            20 * 384,
        ),
        (
            {"llama.attention.sliding_window": 512, "llama.attention.sliding_window_pattern": 6},
            5 * 384,
            25 * 384,
        ),
        (
            {"llama.attention.kv_lora_rank": 512, "llama.rope.dimension_count": 64},
            30 * 576,
            0,
        ),
    ],
)
def test_what_layers_keep(tmp_path: Path, changes: Pairs, full: int, windowed: int) -> None:
    shape = read(tmp_path, {**LLAMA, **changes})
    assert (shape.full, shape.windowed) == (full, windowed)


def test_a_known_pattern_of_an_architecture(tmp_path: Path) -> None:
    gemma = {key.replace("llama.", "gemma3."): value for key, value in LLAMA.items()}
    gemma |= {"general.architecture": "gemma3", "gemma3.attention.sliding_window": 512}
    shape = read(tmp_path, gemma)
    assert (shape.full, shape.windowed, shape.window) == (5 * 384, 25 * 384, 512)


def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m-0000{number}-of-00002.gguf").write_bytes(header(LLAMA))
    first = tmp_path / "m-00001-of-00002.gguf"
    assert gguf.read_shape(first).weights == 2 * first.stat().st_size


def test_a_number_of_layers_that_would_fill_the_memory_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(UnknownShape, match="4294967295 layers are not believed"):
        read(tmp_path, {**LLAMA, "llama.block_count": 2**32 - 1})
    with pytest.raises(UnknownShape, match="not believed"):
        safetensors.shape({**QWEN, "num_hidden_layers": 10**6}, 7)


@pytest.mark.parametrize(
    "changes",
    [
        {"block_count": 0},
        {"attention.head_count": [float("nan")] * 30},
        {"attention.head_count_kv": [float("inf")] * 30},
        {"attention.head_count_kv": [-1] * 30},
        {"attention.sliding_window": 1, "attention.sliding_window_pattern": 2**32 - 1},
    ],
)
def test_numbers_that_no_model_has_are_unknown(tmp_path: Path, changes: Pairs) -> None:
    with pytest.raises(UnknownShape):
        read(tmp_path, {**LLAMA, **{f"llama.{key}": value for key, value in changes.items()}})


def test_a_missing_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownShape, match=r"no number llama\.attention\.head_count"):
        read(tmp_path, {k: v for k, v in LLAMA.items() if "head_count" not in k})


@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_file_is_a_shape_or_unknown(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    file = tmp_path_factory.mktemp("gguf") / "m.gguf"
    whole = header(LLAMA)
    for content in (noise, whole[:at], whole[:at] + noise + whole[at + len(noise) :]):
        file.write_bytes(content)
        try:
            assert isinstance(gguf.read_shape(file), Shape)
        except UnknownShape:
            continue


QWEN = {
    "num_hidden_layers": 36,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12288,
    "vocab_size": 151_936,
    "max_position_embeddings": 40_960,
    "sliding_window": None,
}
EACH = 2 * 8 * 128


@pytest.mark.parametrize(
    ("changes", "full", "windowed"),
    [
        ({}, 36 * EACH, 0),
        ({"num_key_value_heads": None}, 36 * 4 * EACH, 0),
        ({"head_dim": None, "hidden_size": 2048}, 36 * EACH // 2, 0),
        ({"sliding_window": 4096}, 0, 36 * EACH),
        ({"sliding_window": 4096, "use_sliding_window": False}, 36 * EACH, 0),
        (
            {
                "sliding_window": 128,
                "layer_types": ["sliding_attention", "full_attention"] * 18,
            },
            18 * EACH,
            18 * EACH,
        ),
        ({"layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 9}, 9 * EACH, 0),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, 36 * 576, 0),
        ({"text_config": {"num_hidden_layers": 2}}, 2 * EACH, 0),
    ],
)
def test_a_configuration(changes: dict[str, object], full: int, windowed: int) -> None:
    shape = safetensors.shape({**QWEN, **changes}, 7)
    assert (shape.weights, shape.full, shape.windowed) == (7, full, windowed)
    assert not shape.quantised


def test_a_checkpoint_that_is_quantised() -> None:
    assert safetensors.shape({**QWEN, "quantization_config": {"quant_method": "awq"}}, 7).quantised


def test_only_files_of_the_index_are_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    for name, size in (("model-1.safetensors", 10), ("consolidated.safetensors", 99)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert safetensors.read_shape(tmp_path).weights == 109
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert safetensors.read_shape(tmp_path).weights == 10
    for wrong in ({"a": "../config.json"}, {"a": "n" * 1000}, {"a": []}, ["a"], None):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(UnknownShape, match="not there"):
            safetensors.read_shape(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{", "[" * 100_000, '{"num_hidden_layers": "x"}', '{"num_hidden_layers": 0}',
        json.dumps({**QWEN, "head_dim": 10**400}),
    ],
)  # fmt: skip
def test_other_configurations_are_unknown(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UnknownShape):
        safetensors.read_shape(tmp_path)
