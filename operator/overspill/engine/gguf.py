"""The header of a GGUF file → the model's shape.

Only the header's key-value pairs are read, up to the list of tokens, so this takes milliseconds.
The `gguf` library would do it too, but brings numpy and reads every array.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path

from overspill.engine.shape import MOST, Shape, UnknownShape, believed, whole

Value = int | float | bool | str | list[int | float | bool]

_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
MAX_PAIRS = 100_000
MAX_LIST = 100_000  # elements of a list that is kept; others are only counted
TOKENS = "tokenizer.ggml.tokens"  # all that is asked for stands before it
# Of so many layers one is full, the others have a window; llama.cpp knows these by the
# architecture's name where the file does not say. https://github.com/ggml-org/llama.cpp
_PATTERNS = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "llama4": 4}
_PART = re.compile(r"-00001-of-(\d{5})\.gguf$", re.IGNORECASE)


def read_shape(path: Path) -> Shape:
    """The shape of the model in the file `path`. Raises UnknownShape."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            pairs = _needed(_Reader(data).pairs())
    except (OSError, ValueError, struct.error) as error:
        raise UnknownShape(f"{path.name}: {error}") from None
    weights = sum(part.stat().st_size for part in _parts(path))
    return shape(pairs, weights)


def _parts(path: Path) -> list[Path]:
    """All files of a split model, or the one."""
    match = _PART.search(path.name)
    return (
        sorted(path.parent.glob(f"{path.name[: match.start()]}-*-of-{match[1]}.gguf"))
        if match
        else [path]
    )


def _needed(pairs: Iterator[tuple[str, Value]]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, value in pairs:
        found[key] = value
        if key == TOKENS:
            break
    return found


class _Reader:
    """Reads values one after the other; never beyond the end of the data."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def pairs(self) -> Iterator[tuple[str, Value]]:
        """The header's keys and values in their order; of a list of strings only its length."""
        magic, version = self._take(4), self._number("I")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("no GGUF header of version 2 or 3")
        self._number("Q")  # tensors
        count = self._number("Q")
        if count > MAX_PAIRS:
            raise ValueError(f"{count} keys")
        for _ in range(int(count)):
            yield self._string(), self._value(int(self._number("I")))

    def _value(self, kind: int) -> Value:
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(int(self._number("I")), int(self._number("Q")))
        raise ValueError(f"type {kind} is unknown")

    def _array(self, kind: int, length: int) -> Value:
        if kind == _STRING:
            for _ in range(length):
                self._take(int(self._number("Q")))
            return length
        if kind not in _NUMBERS:
            raise ValueError(f"list of type {kind}")
        size = struct.calcsize(f"<{_NUMBERS[kind]}")
        raw = self._take(size * length)
        return (
            list(struct.unpack(f"<{length}{_NUMBERS[kind]}", raw)) if length <= MAX_LIST else length
        )

    def _string(self) -> str:
        return self._take(int(self._number("Q"))).decode(errors="replace")

    def _number(self, kind: str) -> int | float | bool:
        layout = struct.Struct(f"<{kind}")
        (value,) = layout.unpack(self._take(layout.size))
        return value  # type: ignore[no-any-return]

    def _take(self, size: int) -> bytes:
        raw = self._data[self._at : self._at + size]
        if len(raw) != size:
            raise ValueError("the header ends too early")
        self._at += size
        return raw


def shape(pairs: Mapping[str, Value], weights: int) -> Shape:
    """The shape that a header tells of. Raises UnknownShape."""
    keys = _Keys(pairs)
    layers = believed(keys.number("block_count"))
    heads = keys.each("attention.head_count", layers)
    kv_heads = keys.each("attention.head_count_kv", layers, heads)
    size = keys.number("embedding_length") // max(1, *heads)
    per_head = keys.number("attention.key_length", size) + keys.number(
        "attention.value_length", size
    )
    latent = keys.number("attention.kv_lora_rank", 0)
    each = [heads * per_head for heads in kv_heads]
    if latent:
        each = [latent + keys.number("rope.dimension_count", 0)] * layers
    window = keys.number("attention.sliding_window", 0)
    full = list(islice(cycle(_full_layers(keys, window)), layers))
    return Shape(
        weights=weights,
        layers=layers,
        kv_heads=max(kv_heads),
        full=sum(elements for elements, is_full in zip(each, full, strict=True) if is_full),
        windowed=sum(elements for elements, is_full in zip(each, full, strict=True) if not is_full),
        window=window,
        hidden=keys.number("embedding_length"),
        feed_forward=max(keys.each("feed_forward_length", layers, [0] * layers)),
        vocabulary=keys.vocabulary(),
        context=keys.number("context_length", 0),
        quantised=True,
    )


def _full_layers(keys: "_Keys", window: int) -> list[bool]:
    """Which layers see the whole context, repeated as often as it takes.

    Without a pattern all layers of a model with a window count as windowed: rather too little
    than to refuse what would run.
    """
    if not window:
        return [True]
    pattern = keys.pattern()
    if isinstance(pattern, list):
        return [not windowed for windowed in pattern]
    period = pattern or _PATTERNS.get(keys.architecture, 0)
    return [False] * (period - 1) + [True] if period else [False]


class _Keys:
    """The keys of the header's architecture."""

    def __init__(self, pairs: Mapping[str, Value]) -> None:
        self._pairs = pairs
        self.architecture = str(pairs.get("general.architecture", ""))

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number; the largest of a list. Raises UnknownShape when it is missing."""
        value = self._pairs.get(f"{self.architecture}.{key}", default)
        if isinstance(value, list) and value:
            value = max(value)
        return self._whole(value, key)

    def each(self, key: str, layers: int, default: list[int] | None = None) -> list[int]:
        """A number per layer, which may be given as one for all."""
        value = self._pairs.get(f"{self.architecture}.{key}")
        if value is None and default is not None:
            return default
        if isinstance(value, list) and len(value) == layers:
            return [self._whole(one, key) for one in value]
        return [self.number(key)] * layers

    def _whole(self, value: object, key: str) -> int:
        return whole(value, "the GGUF header", f"{self.architecture}.{key}")

    def pattern(self) -> int | list[bool]:
        """Which layers have a window: one per layer, or the period; 0 when it is not said."""
        value = self._pairs.get(f"{self.architecture}.attention.sliding_window_pattern")
        if isinstance(value, list) and value:
            return [bool(one) for one in value]
        return believed(value) if isinstance(value, int) and value > 0 else 0

    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        value = self._pairs.get(TOKENS, self._pairs.get(f"{self.architecture}.vocab_size", 0))
        return value if isinstance(value, int) and 0 <= value <= MOST else 0
