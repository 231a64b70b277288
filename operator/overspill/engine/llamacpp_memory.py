"""What llama.cpp allocates, per device.

Weights are mapped from their file, and all pages are used. The KV cache is allocated whole, for
each sequence, in cells that come in 256; a windowed layer keeps the window and one step. The
buffers that one step needs follow the width of the model and the step; `tests/engine` holds the
sum to what the real llama.cpp takes.
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-kv-cache.cpp
"""

from collections.abc import Sequence

from overspill.engine.fit import Need
from overspill.engine.options import Options
from overspill.engine.shape import Shape

MIB = 1 << 20
CELLS = 256
BYTES = {"int8": 34 / 32}  # q8_0: blocks of 32 with a scale of two bytes; the others have 2 each
FLOAT = 4
# On CPUs: two Python processes, llama.cpp's library and what it holds whatever the model is; and
# the tokenizer's tables. Fitted to models of 49,152 and 262,144 tokens.
PROGRAMS = 64 * MIB
PER_TOKEN_OF_VOCABULARY = 200
CONTEXT_OF_DEVICE = 256 * MIB  # what a GPU's driver takes for a process, about


def need(options: Options, steps: tuple[int, int], shapes: Sequence[Shape]) -> Need:
    """What all of `shapes`, the model and perhaps a draft model, need together.

    :param steps: tokens of one step, and of these at once.
    """
    main = shapes[0]
    own = options.context_length is None  # then all sequences share a cache
    tokens = _cells(options.context_length or main.context)
    sequences = 1 if own else options.max_sequences
    step = steps[1]
    cached = sum(
        shape.cached(tokens, _cells(shape.window * (options.max_sequences if own else 1) + step))
        for shape in shapes
    )
    buffers = sum(_buffers(shape, step, tokens, options) for shape in shapes)
    devices = options.devices
    return Need(
        weights=sum(shape.weights for shape in shapes) / devices,
        cache=cached * sequences * BYTES.get(options.kv_cache_dtype, 2) / devices,
        overhead=buffers + _programs(main, options),
        sequences=sequences,
        tokens=tokens,
    )


def _cells(tokens: int) -> int:
    return -(-tokens // CELLS) * CELLS


def _buffers(shape: Shape, step: int, tokens: int, options: Options) -> float:
    """A step's activations and its mask, and the scores of each token that is asked for."""
    activations = step * (4 * shape.hidden + 2 * shape.feed_forward + tokens)
    scored = step if options.embedding else options.max_sequences
    return (activations + 2 * scored * shape.vocabulary) * FLOAT


def _programs(shape: Shape, options: Options) -> float:
    if options.accelerator:
        return CONTEXT_OF_DEVICE
    kept = (options.kv_host_offload or 0) if options.prefix_caching else 0
    return PROGRAMS + PER_TOKEN_OF_VOCABULARY * shape.vocabulary + kept
