"""Options that only the real llama.cpp can show to work, and how it says what does not."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Served

ROUND = "one two three four one two three four one two three four one two three four one two"


@pytest.mark.parametrize("draft", [False, True])
def test_guessed_tokens_are_accepted_and_change_nothing(
    launch: Callable[..., Served], model: Path, draft: bool
) -> None:
    method = f'"draft", "model": "{model}"' if draft else '"ngram"'
    given = f'{{"tokens": 4, "method": {method}}}'
    guessing = launch(CONTEXT_LENGTH=512, MAX_SEQUENCES=1, SPECULATIVE=given).wait()
    plain = launch(CONTEXT_LENGTH=512, MAX_SEQUENCES=1).wait()
    answers = [engine.complete(ROUND, 40)["choices"][0]["text"] for engine in (guessing, plain)]
    assert answers[0] == answers[1]
    assert guessing.metrics()["llamacpp:spec_decode_num_accepted_tokens_total"] >= 10
    assert plain.metrics()["llamacpp:spec_decode_num_draft_tokens_total"] == 0


def ends(engine: Served) -> tuple[int, str]:
    """Exit status and last line of an engine that cannot start."""
    return engine.process.wait(timeout=60), engine.log.read_text().splitlines()[-1]


def test_a_model_that_does_not_fit_is_told_before_it_is_loaded(
    launch: Callable[..., Served],
) -> None:
    device = {"ACCELERATOR": "NVIDIA-T4", "ACCELERATOR_COUNT": 1, "ACCELERATOR_MEMORY": 1 << 30}
    status, line = ends(launch(CONTEXT_LENGTH=8192, MAX_SEQUENCES=8, **device))
    assert status == 6
    assert line.startswith("ModelDoesNotFit: needs 1.75 GiB (weights 0.09, KV cache 1.41 at 8 x ")
    (context,) = re.findall(r"NVIDIA-T4 has 1\.00; lower model\.contextLength to (\d+)", line)
    launch(CONTEXT_LENGTH=context, MAX_SEQUENCES=8, **device).wait()


def test_several_gpus_are_refused_by_a_build_that_sees_none(launch: Callable[..., Served]) -> None:
    status, line = ends(launch(TENSOR_PARALLEL=2))
    assert status == 2
    assert line.startswith("InvalidOptions: parallelism asks for 2 GPUs and this build")


def test_a_broken_file_is_told_with_the_cause(
    launch: Callable[..., Served], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\x03" + b"\xff" * 400)
    engine = launch(MODEL_PATH=broken)
    status, line = ends(engine)
    assert status == 4
    assert line.startswith(f"ModelLoadFailed: llama.cpp cannot load {broken} (")
    assert "cause" in engine.logged("memory is not checked: the model's shape is unknown")
