"""How an engine's end is told: termination message, exit status, memory limit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from overspill.engine.errors import (
    EngineCrashed,
    EngineError,
    InvalidOptions,
    ModelDoesNotFit,
    ModelLoadFailed,
)
from overspill.engine.limits import memory_limit
from overspill.engine.llamacpp import LlamaCpp
from overspill.engine.supervisor import fault
from overspill.engine.termination import MAX_BYTES, leave_message
from overspill.engine.vllm import VLLM


@pytest.mark.parametrize(
    ("status", "lines", "kind", "text"),
    [
        (2, ["InvalidOptions: no option 'x'"], InvalidOptions, "InvalidOptions: no option 'x'"),
        (
            4,
            [
                "0.1 W srv init: security",
                "0.2 E gguf_init: failed to read",
                "ModelLoadFailed: llama.cpp cannot load /a",
            ],
            ModelLoadFailed,
            "ModelLoadFailed: llama.cpp cannot load /a (gguf_init: failed to read)",
        ),
        (-signal.SIGKILL, [], EngineCrashed, "memory limit"),
        (-signal.SIGABRT, ["GGML_ASSERT(x) failed"], EngineCrashed, "SIGABRT: GGML_ASSERT(x)"),
        (1, [], EngineCrashed, "status 1: it wrote nothing"),
        (0, [], EngineCrashed, "status 0"),
    ],
)
def test_the_end_of_llamacpp_becomes_a_fault(
    status: int, lines: list[str], kind: type[EngineError], text: str
) -> None:
    error = fault(LlamaCpp(), status, lines, served=False)
    assert type(error) is kind
    assert text in str(error)


CORE = "(EngineCore pid=7) ERROR 11-25 04:00:00 [core.py:1099] "
HOLLOW = "RuntimeError: Engine core initialization failed. See root cause above."


@pytest.mark.parametrize(
    ("status", "lines", "served", "kind", "text"),
    [
        (
            2,
            ["usage: vllm serve", "vllm serve: error: unrecognized arguments: --enforce-eagre"],
            False,
            InvalidOptions,
            "vLLM: unrecognized arguments: --enforce-eagre",
        ),
        (
            1,
            [f"{CORE}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.", HOLLOW],
            False,
            ModelDoesNotFit,
            "ModelDoesNotFit: vLLM: CUDA out of memory. Tried to allocate 2 GiB.",
        ),
        (
            1,
            [
                f"{CORE}ValueError: To serve at least one request with the model's max seq len "
                "(131072), (16.0 GiB KV cache is needed",
                HOLLOW,
            ],
            False,
            ModelDoesNotFit,
            "vLLM: To serve at least one request with the model's max seq len (131072)",
        ),
        (
            1,
            [f"{CORE}ValueError: Model architectures ['X'] are not supported for now.", HOLLOW],
            False,
            ModelLoadFailed,
            "ValueError: Model architectures ['X'] are not supported for now.",
        ),
        (1, [HOLLOW], False, ModelLoadFailed, HOLLOW),
        (1, [], False, ModelLoadFailed, "it wrote nothing"),
        (1, ["torch.OutOfMemoryError: CUDA out of memory."], True, EngineCrashed, "CUDA out of"),
        (-signal.SIGKILL, [], False, EngineCrashed, "memory limit"),
        (-signal.SIGSEGV, ["!!!!!!! Segfault"], True, EngineCrashed, "SIGSEGV: !!!!!!! Segfault"),
    ],
)
def test_the_end_of_vllm_becomes_a_fault(
    status: int, lines: list[str], served: bool, kind: type[EngineError], text: str
) -> None:
    error = fault(VLLM(), status, lines, served)
    assert type(error) is kind
    assert text in str(error)


@pytest.mark.parametrize("engine", ["sglang", "llamacpp "])
def test_an_engine_that_the_image_does_not_carry(tmp_path: Path, engine: str) -> None:
    program = [sys.executable, "-m", "overspill.engine.main", "serve"]
    env = {**os.environ, "OVERSPILL_MODEL_PATH": str(tmp_path), "OVERSPILL_ENGINE": engine}
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "give one of llamacpp, vllm" in done.stderr


def test_a_message_is_left_where_kubernetes_looks(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.touch()
    leave_message("ModelNotFound: é" + "x" * 9000, path)
    assert path.read_text().startswith("ModelNotFound: é")
    assert path.stat().st_size == MAX_BYTES


def test_outside_kubernetes_nothing_is_written(tmp_path: Path) -> None:
    leave_message("ModelNotFound: x", tmp_path / "termination-log")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "536870912\n"}, 536870912),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "1048576\n"}, 1048576),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({}, None),
    ],
)
def test_the_memory_limit(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == limit


def test_the_program_ends_with_reason_and_status(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "overspill.engine.main", "serve"]
    env = {**os.environ, "OVERSPILL_MODEL_PATH": str(tmp_path / "nowhere")}
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("ModelNotFound: ")
