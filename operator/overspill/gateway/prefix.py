"""Which prompts begin alike, and what a replica's cache probably holds of them. No I/O.

A prompt is cut into blocks of 2 KiB, about 512 tokens, whatever the engine's own block is. A
block's hash includes the one before it, so two prompts share a hash exactly where they are equal up
to there; the first hash includes the tenant, so that tenants share none. What is hashed is the body
that was written for the engine, in which the prompt comes first: nothing is parsed or written for
this. XXH3 is no cryptographic hash: who makes two blocks collide misroutes requests of their own
tenant, nothing else. https://xxhash.com
"""

from xxhash import xxh3_64_intdigest

from overspill.gateway.call import Call, prompt_start

Blocks = tuple[int, ...]  # hashes of a prompt's whole blocks, in order

BLOCK = 2048  # bytes
MAX_BLOCKS = 512  # of one prompt; about 260,000 tokens, what is beyond is not looked at
# Blocks in one of the two generations of a mirror: together 1 to 2 million tokens, as much as the
# KV cache of a large GPU. A mirror takes at most 0.4 MB.
GENERATION = 2048


def blocks_of(call: Call, tenant: str) -> Blocks:
    """Return a prompt's blocks; none where no text is made, so that engines keep no cache of it.

    0.2 µs per block.
    """
    if not call.endpoint.streams:  # embeddings, counts of tokens
        return ()
    body, start = memoryview(call.body), prompt_start(call)
    chained = xxh3_64_intdigest(tenant.encode())
    blocks: list[int] = []
    for end in range(start + BLOCK, min(len(body), start + MAX_BLOCKS * BLOCK) + 1, BLOCK):
        chained = xxh3_64_intdigest(body[end - BLOCK : end], chained)
        blocks.append(chained)
    return tuple(blocks)


class Mirror:
    """What one replica was asked to compute, the newest of it.

    Two sets of whole prompts: when the younger one is full, the older is forgotten. So what is used
    again stays, as in a cache that evicts what was not used for longest; and a block is in a set
    only together with all that come before it in its prompt.
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: set[int] = set()
        self._old: set[int] = set()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self, blocks: Blocks) -> None:
        """Note a prompt that is sent there."""
        if len(self._young) >= GENERATION:
            self._old, self._young = self._young, set()
        self._young.update(blocks)

    def held(self, blocks: Blocks) -> int:
        """Return how many blocks, from the first one on, it has probably cached."""
        young, old = self._young, self._old
        low, high = 0, len(blocks)
        while low < high:  # what is held is a beginning: its end is searched for in halves
            middle = (low + high) // 2
            block = blocks[middle]
            if block in young or block in old:
                low = middle + 1
            else:
                high = middle
        return low
