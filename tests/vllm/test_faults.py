"""How a real vLLM ends when it cannot start, and what we make of it."""

from pathlib import Path

import pytest

from conftest import engine


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ('["enforce_eagre=true"]', 2, "InvalidOptions: vLLM: unrecognized arguments: --enforce-e"),
        (
            '["enforce_eager=true", "kv_cache_memory_bytes=8388608"]',
            6,
            "ModelDoesNotFit: vLLM: To serve at least one request with the model's max seq len",
        ),
    ],
)
def test_faults_are_told_with_their_cause(
    tmp_path: Path, args: str, status: int, words: str
) -> None:
    with engine(tmp_path / "engine.log", ENGINE_ARGS=args) as served:
        ended, last = served.end()
    assert (ended, last[: len(words)]) == (status, words)
