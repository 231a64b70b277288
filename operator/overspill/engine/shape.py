"""What of a model decides its memory: bytes of weights, and what attention keeps of each token.

An attention layer keeps the keys and values of each token: 2 × KV heads × head size elements, so
grouped-query attention counts its KV heads only. Two kinds of layers keep less: a sliding-window
layer keeps the last `window` tokens only; one of multi-head latent attention a single compressed
vector. Layers without attention (state-space, linear attention) keep a state of constant size,
which is small and not counted.
"""

from dataclasses import dataclass

# Larger numbers in a file are not believed.
MAX_LAYERS = 10_000  # lists are as long as this
MOST = 2**40  # of a width, a length or a count; products of all of them are still a float


class UnknownShape(Exception):
    """A model's files do not tell its shape; the message says what is missing."""


@dataclass(frozen=True)
class Shape:
    """The shape of one model. `full` and `windowed` are elements of the KV cache per token.

    They are summed over all layers of their kind. `quantised` says that the weights are stored in
    fewer than 16 bits. `context` is the longest that the model was made for, in tokens.
    """

    weights: int  # bytes
    layers: int
    kv_heads: int
    full: int
    windowed: int = 0
    window: int = 0  # tokens
    hidden: int = 0
    feed_forward: int = 0
    vocabulary: int = 0
    context: int = 0
    quantised: bool = False

    def cached(self, tokens: int, window: int) -> int:
        """Elements that one sequence of `tokens` keeps, where windows hold `window` tokens."""
        return self.full * tokens + self.windowed * min(tokens, window)


def believed(layers: int) -> int:
    """`layers`, a number that a file gave. Raises UnknownShape."""
    if not 0 < layers <= MAX_LAYERS:
        raise UnknownShape(f"{layers} layers are not believed")
    return layers


def whole(value: object, where: str, key: str) -> int:
    """`value`, which a file gives for `key`, as a number. Raises UnknownShape when it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise UnknownShape(f"{where} has no number {key}")
    return value
