"""What llama.cpp takes, against what was reckoned before it started."""

from collections.abc import Callable

import pytest

from conftest import Served

MIB = 1 << 20


@pytest.mark.parametrize(
    ("context", "sequences", "dtype"),
    [(512, 1, "auto"), (1024, 4, "auto"), (2048, 8, "fp16"), (4096, 4, "int8"), (4096, 4, "bf16")],
)
def test_memory_is_as_reckoned(
    launch: Callable[..., Served], context: int, sequences: int, dtype: str
) -> None:
    engine = launch(CONTEXT_LENGTH=context, MAX_SEQUENCES=sequences, KV_CACHE_DTYPE=dtype).wait()
    engine.complete("Once upon a time " * 60, 8)
    need = engine.logged("memory")["need"]
    reckoned, taken = sum(need.values()), engine.memory() / MIB
    print(f"{context} x {sequences} {dtype}: reckoned {reckoned} MiB {need}, taken {taken:.0f} MiB")
    assert reckoned == pytest.approx(taken, rel=0.15)
