"""The two engine images keep one contract; the one for GPUs cannot be built everywhere."""

import re
from pathlib import Path

import pytest

import vllm_cpu
from overspill.engine.main import ENGINES

ROOT = Path(__file__).resolve().parents[3]
Instruction = tuple[str, str]


def instructions(name: str) -> list[Instruction]:
    """The recipe of an image, without comments and continued lines joined."""
    text = (ROOT / f"images/{name}/Dockerfile").read_text()
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = "\n".join(lines).replace("\\\n", " ")
    found = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(word, " ".join(rest.split())) for word, rest in found]


def last_stage(name: str) -> list[Instruction]:
    recipe = instructions(name)
    start = max(n for n, (word, _) in enumerate(recipe) if word == "FROM")
    return recipe[start:]


def environment(name: str) -> dict[str, str]:
    (text,) = (rest for word, rest in last_stage(name) if word == "ENV")
    return dict(pair.split("=", 1) for pair in text.split())


@pytest.mark.parametrize("word", ["COPY", "USER", "EXPOSE", "CMD"])
def test_what_the_pods_rely_on_is_alike(word: str) -> None:
    cpu, gpu = (
        [rest for found, rest in last_stage(name) if found == word]
        for name in ("engine-cpu", "engine-gpu")
    )
    assert cpu == gpu != []


def test_only_the_engines_part_goes_in() -> None:
    for name in ("engine-cpu", "engine-gpu"):
        copied = [
            rest for word, rest in instructions(name) if word == "COPY" and "operator/" in rest
        ]
        assert copied == [
            "operator/overspill/__init__.py /src/operator/overspill/",
            "operator/overspill/engine /src/operator/overspill/engine",
        ]


@pytest.mark.parametrize(("name", "engine"), [("engine-cpu", "llamacpp"), ("engine-gpu", "vllm")])
def test_the_image_says_which_engine_it_carries(name: str, engine: str) -> None:
    assert environment(name)["OVERSPILL_ENGINE"] == engine
    assert engine in ENGINES
    assert environment(name)["PYTHONPATH"] == "/app/overspill:/app/lib"
    assert environment(name)["PATH"].startswith("/app/overspill/bin:")


def test_vllm_is_of_the_version_whose_options_are_tested() -> None:
    assert ("ARG", f"BASE=docker.io/vllm/vllm-openai:v{vllm_cpu.VERSION}") in instructions(
        "engine-gpu"
    )
    assert ("ENTRYPOINT", "[]") in last_stage("engine-gpu")


def test_nothing_stands_in_the_way_of_vllms_own_libraries() -> None:
    locked = (ROOT / "requirements/engine-gpu.txt").read_text()
    assert re.findall(r"^([a-z][\w-]*)==", locked, re.MULTILINE) == ["structlog"]
