"""`config.json` and the files beside it → the shape of a safetensors model.

https://huggingface.co/docs/transformers/main_classes/configuration
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overspill.engine.shape import Shape, UnknownShape, believed, whole

MAX_BYTES = 64 << 20  # of a JSON file


def read_shape(folder: Path) -> Shape:
    """The shape of the model in `folder`. Raises UnknownShape."""
    config = _object(folder / "config.json")
    return shape(config, sum(file.stat().st_size for file in _weights(folder)))


def _weights(folder: Path) -> list[Path]:
    """The files with weights: those of the index, where there is one. Raises UnknownShape."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    weight_map = _object(index).get("weight_map")
    names = {str(name) for name in weight_map.values()} if isinstance(weight_map, dict) else set()
    files = [file for file in folder.iterdir() if file.name in names and file.is_file()]
    if not files or len(files) < len(names):
        raise UnknownShape("model.safetensors.index.json names files that are not there")
    return files


def _object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise UnknownShape(f"{path.name}: {error}") from None
    if not isinstance(value, dict):
        raise UnknownShape(f"{path.name} is not a JSON object")
    return value


def shape(config: Mapping[str, Any], weights: int) -> Shape:
    """The shape that a configuration tells of; of several models, its text model's.

    Raises UnknownShape.
    """
    text = config.get("text_config")
    model = {**config, **text} if isinstance(text, dict) else config
    layers, hidden = believed(_number(model, "num_hidden_layers")), _number(model, "hidden_size")
    heads = _number(model, "num_attention_heads")
    kv_heads = _number(model, "num_key_value_heads", heads)
    each = 2 * kv_heads * _number(model, "head_dim", hidden // max(1, heads))
    if latent := _number(model, "kv_lora_rank", 0):
        each = latent + _number(model, "qk_rope_head_dim", 0)
    window, kinds = _windows(model, layers)
    return Shape(
        weights=weights,
        layers=layers,
        kv_heads=kv_heads,
        full=each * kinds.count("full"),
        windowed=each * kinds.count("windowed"),
        window=window,
        hidden=hidden,
        feed_forward=_number(model, "intermediate_size", 0),
        vocabulary=_number(model, "vocab_size", 0),
        context=_number(model, "max_position_embeddings", 0),
        quantised="quantization_config" in model,
    )


_KINDS = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "windowed",
    "chunked_attention": "windowed",
}


def _windows(model: Mapping[str, Any], layers: int) -> tuple[int, list[str]]:
    """Tokens of a window, and what each layer keeps: `full`, `windowed`, or something else.

    Where a window is in use and nothing says by which layers, all of them count as windowed:
    rather too little than to refuse what would run.
    """
    window = _number(model, "sliding_window", 0)
    types = model.get("layer_types")
    if isinstance(types, list) and len(types) == layers:
        return window, [_KINDS.get(str(kind), "state") for kind in types]
    if not window or model.get("use_sliding_window") is False:
        return 0, ["full"] * layers
    return window, ["windowed"] * layers


def _number(model: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = model.get(key)
    value = default if value is None else value
    return whole(value, "config.json", key)
