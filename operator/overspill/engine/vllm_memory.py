"""What vLLM needs per device to start at all: less than this and it refuses the model itself.

vLLM takes a share of the device, loads the weights, runs a largest step to see what that takes,
and gives the rest to the KV cache. It starts when one sequence of the context length fits in
there; how many more do decides how many run at once. What a step takes is not known without
running it, so the overhead here is a lower bound.
https://docs.vllm.ai/en/stable/configuration/conserving_memory/
"""

from collections.abc import Sequence

from overspill.engine.fit import Need
from overspill.engine.options import Options
from overspill.engine.shape import Shape

SHARE = 0.92  # gpu_memory_utilization, vLLM's default
STEP = 2048  # tokens of a step where nobody says; vLLM takes more on large devices
BYTES = {"fp8": 1, "int8": 1}  # of an element of the KV cache; the others have 2
HALF, FLOAT = 2, 4
# Outside of torch: the driver's context, libraries. On CPUs: four Python processes with torch.
CONTEXT_OF_DEVICE = 512 << 20
PROGRAMS = 2 << 30


def need(options: Options, shapes: Sequence[Shape]) -> Need:
    """What all of `shapes`, the model and perhaps a draft model, need for one sequence."""
    main = shapes[0]
    tokens = options.context_length or main.context
    step = options.max_batched_tokens or STEP
    element = BYTES.get(options.kv_cache_dtype, HALF)
    cache = sum(
        shape.cached(tokens, shape.window + step) * element * _heads(shape, options)
        for shape in shapes
    )
    activations = step * (2 * main.hidden + 2 * main.feed_forward) * HALF
    scores = options.max_sequences * main.vocabulary * FLOAT
    return Need(
        weights=sum(_weights(shape, options) for shape in shapes) / options.devices,
        cache=cache / options.pipeline_parallel,
        overhead=(activations + scores) / options.tensor_parallel
        + (CONTEXT_OF_DEVICE if options.accelerator else PROGRAMS),
        sequences=1,
        tokens=tokens,
    )


def _heads(shape: Shape, options: Options) -> float:
    """The share of the KV heads that one device holds; a head is never split."""
    heads = max(1, shape.kv_heads)
    return -(-heads // options.tensor_parallel) / heads


def _weights(shape: Shape, options: Options) -> float:
    """Bytes once loaded: quantised at load, all but the embeddings take half."""
    if options.quantization == "none" or shape.quantised:
        return shape.weights
    embeddings = 2 * shape.vocabulary * shape.hidden * HALF
    return shape.weights - max(0, shape.weights - embeddings) / 2
