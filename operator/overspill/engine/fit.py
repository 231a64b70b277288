"""Does the model fit, before anything is loaded? And what would make it fit?

An engine says what it needs for its options (`Need`, by its own formula); here this is compared
with the room there is, and the same formula is asked again with other options to find remedies
that would work. What nobody knows (a model's shape, a device's memory) never stops a start.

Limits: an engine's needs are its lower bounds, so what passes here can still fail to fit, and the
engine then says so itself; what is refused here could not have run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from overspill.engine.options import Accelerator, Options

GIB, MIB = 1 << 30, 1 << 20
CONTEXT_STEP = 256  # tokens to which a proposed context is rounded down
MIN_CONTEXT = 512  # a shorter one is no remedy
MAX_DEVICES = 16  # of one node


@dataclass(frozen=True)
class Need:
    """Bytes that each device (or the container, on CPUs) must hold.

    `cache` holds `sequences` times `tokens` tokens.
    """

    weights: float
    cache: float
    overhead: float
    sequences: int
    tokens: int

    @property
    def total(self) -> float:
        """All of it, in bytes."""
        return self.weights + self.cache + self.overhead

    def shown(self) -> dict[str, int]:
        """All of it in MiB, for a log."""
        parts = {"weights": self.weights, "cache": self.cache, "overhead": self.overhead}
        return {name: round(size / MIB) for name, size in parts.items()}


@dataclass(frozen=True)
class Room:
    """Bytes of each device, or of the container, that an engine may use; and whose they are."""

    size: float
    whose: str
    devices: int = 1
    accelerator: bool = False


Formula = Callable[[Options], Need]


def room(
    accelerator: Accelerator | None, memory_limit: int | None, share: float, devices: int
) -> Room | None:
    """The room for a model, None when nobody knows it.

    :param memory_limit: the container's, in bytes; it counts where there is no accelerator.
    :param share: of an accelerator's memory that the engine takes.
    :param devices: among which the engine divides the model.
    """
    if accelerator is None:
        if memory_limit is None:
            return None
        return Room(memory_limit, "the container (resources.memory)")
    if accelerator.memory is None:
        return None
    part = "" if share == 1 else f" ({share:.0%} of its memory)"
    return Room(accelerator.memory * share, accelerator.name + part, devices, accelerator=True)


def misfit(formula: Formula, options: Options, space: Room, smaller_cache: str) -> str | None:
    """Why the model does not fit and what would help; None when it fits.

    :param smaller_cache: the engine's smallest KV cache type, in neutral words.
    """
    need = formula(options)
    if need.total <= space.size:
        return None
    every = f" on each of {space.devices} devices" if space.devices > 1 else ""
    text = (
        f"needs {_gib(need.total)} GiB{every} (weights {_gib(need.weights)}, KV cache "
        f"{_gib(need.cache)} at {need.sequences} x {need.tokens} tokens, overhead "
        f"{_gib(need.overhead)}), {space.whose} has {_gib(space.size)}"
    )
    found = list(remedies(formula, options, space, smaller_cache))
    return f"{text}; {', or '.join(found) or 'use a smaller model'}"


def remedies(formula: Formula, options: Options, space: Room, smaller_cache: str) -> Iterator[str]:
    """Changes of one field each with which the model would fit."""

    def fits(changed: Options) -> bool:
        return formula(changed).total <= space.size

    need = formula(options)
    context = _largest(
        lambda steps: fits(replace(options, context_length=steps * CONTEXT_STEP)),
        (need.tokens - 1) // CONTEXT_STEP,
    )
    if context * CONTEXT_STEP >= MIN_CONTEXT:
        yield f"lower model.contextLength to {context * CONTEXT_STEP}"
    sequences = _largest(lambda n: fits(replace(options, max_sequences=n)), need.sequences - 1)
    if sequences:
        yield f"lower engine.batching.maxSequences to {sequences}"
    if fits(replace(options, kv_cache_dtype=smaller_cache)):
        yield f"set engine.kvCache.dtype to {smaller_cache}"
    if options.quantization == "none" and _fits_quantised(formula, options, space):
        yield "set engine.quantization to fp8"
    yield from _more_room(formula, options, space)


def _fits_quantised(formula: Formula, options: Options, space: Room) -> bool:
    need, quantised = formula(options), formula(replace(options, quantization="fp8"))
    return quantised.total < need.total and quantised.total <= space.size


def _more_room(formula: Formula, options: Options, space: Room) -> Iterator[str]:
    if not space.accelerator:
        yield f"raise resources.memory to {_ceiling(formula(options).total)}Mi"
        return
    count = options.tensor_parallel * 2
    while count * options.pipeline_parallel <= MAX_DEVICES:
        if formula(replace(options, tensor_parallel=count)).total <= space.size:
            devices = count * options.pipeline_parallel
            yield (
                f"set engine.parallelism.tensor to {count} and "
                f"resources.accelerator.count to {devices}"
            )
            return
        count *= 2


def _largest(good: Callable[[int], bool], high: int) -> int:
    """The largest number up to `high` that is good, 0 when none is; small ones are better."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if good(middle) else (low, middle - 1)
    return low


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}" if size < 10 * GIB else f"{size / GIB:.1f}"


def _ceiling(size: float) -> int:
    """MiB, with a twentieth to spare, rounded up to 64."""
    return -(-int(size * 1.05) // (64 * MIB)) * 64
