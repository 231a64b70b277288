"""The memory that requests may take: bounded for the whole process, whoever sends them.

A queue is bounded by requests, and a request by its size; many large ones that wait would still
fill a container's memory, and the kernel would end every stream that it carries. So each request
holds its part of one budget from its first byte to its end: while it is read for what it announced,
or what has come, and then for what it takes, parsed and written anew. No I/O.
"""

import re
from sys import getsizeof
from typing import Any

from overspill.gateway.errors import ApiError, bad_request

# Of the container's memory. The rest is for the program, for what connections buffer, for answers,
# and for the one body that is just being parsed.
PART = 3
# Strings, numbers, lists and objects in one body. OpenAI takes 300,000 tokens in one request for
# embeddings; at 60 ns each, this many are weighed in 30 ms.
MAX_VALUES = 500_000
# Bytes of a body that holds too little to be worth a look before it is parsed.
SMALL = 65_536
# A list, an object or a member of one takes the parser 0.25 to 0.45 µs, a number or a string 0.05.
CONTAINER = 3
# Also one without an end: looked for again behind each of its quotes, it would take the square of
# its length, which is days for 10 MB.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


class Memory:
    """The budget.

    :param limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0


class Share:
    """What one request holds; given back at the end of its ``with`` block."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._bytes = 0

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.held -= self._bytes
        self._bytes = 0

    def hold(self, number: int) -> None:
        """Hold that many bytes, instead of what was held until now.

        :raises ApiError: 413 when it could never have them, 503 when others have them now.
        """
        memory = self._memory
        if number > memory.limit:
            raise ApiError(
                413,
                "request_too_large",
                f"the request takes {number} bytes of memory, this gateway has {memory.limit} "
                "for all; send less at once",
            )
        if memory.held - self._bytes + number > memory.limit:
            raise ApiError(
                503,
                "gateway_full",
                f"the requests that are here take the {memory.limit} bytes of memory that this "
                "gateway has for them; retry later",
                retry_after=1,
            )
        memory.held += number - self._bytes
        self._bytes = number


def look_at(body: bytes) -> None:
    """Refuse a body of too many values before it is parsed: 10 MB of ``[]`` would take a second.

    Nothing else runs meanwhile. Of what might be too many, the strings are left out and the rest is
    counted again: a prompt may hold as many brackets as it likes.

    :raises ApiError: 400 when there are too many.
    """
    if len(body) <= SMALL or CONTAINER * _marks(body) <= MAX_VALUES or _values(body) <= MAX_VALUES:
        return
    if body.count(b'"') - body.count(b'\\"') > MAX_VALUES:  # one for each string, in JSON
        raise _too_many()
    rest, strings = _STRING.subn(b"", body, MAX_VALUES + 1)
    if strings > MAX_VALUES or _values(rest) > MAX_VALUES:
        raise _too_many()


def _marks(body: bytes) -> int:
    """Return how many signs of structure a body has, in one pass: 0.5 µs per KB, a count 0.25."""
    return len(body) - len(body.translate(None, b"[{:,"))


def _values(body: bytes) -> int:
    """Return how many values a body has at most, as far as they take time."""
    containers = body.count(b"[") + body.count(b"{") + body.count(b":")
    return body.count(b",") + CONTAINER * containers


def _too_many() -> ApiError:
    return bad_request(
        f"the body holds more than {MAX_VALUES} values; send several requests",
        code="too_many_values",
    )


def weigh(fields: dict[str, Any]) -> int:
    """Return the bytes of memory that a parsed body takes.

    JSON can take thirty times its size: an empty list is 2 bytes there and 64 here.

    :raises ApiError: 400 when it holds too many values to be weighed in time.
    """
    total, count = 0, 0
    containers: list[Any] = [fields]
    while containers:
        container = containers.pop()
        total += getsizeof(container)
        count += len(container)
        if count > MAX_VALUES:
            raise _too_many()
        if isinstance(container, dict):
            total += sum(map(getsizeof, container))
            container = container.values()
        for value in container:
            if isinstance(value, (list, dict)):
                containers.append(value)
            else:
                total += getsizeof(value)
    return total
