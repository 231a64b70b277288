"""Every flag that options can become, through vLLM's own parser."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import vllm_cpu
from conftest import python
from overspill.engine.options import Options, Speculative
from overspill.engine.vllm import RESERVED, flags

PARSER = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
known = sorted(name for action in parser._actions for name in action.option_strings)
parsed = [
    {name: repr(value) for name, value in vars(parser.parse_args(flags)).items()}
    for flags in json.loads(sys.argv[1])
]
print(json.dumps({"known": known, "parsed": parsed}))
"""
DEFAULT = Options(model_path=Path("/model"), served_name="chat")
CASES: list[tuple[dict[str, Any], dict[str, object]]] = [
    ({}, {"host": "0.0.0.0", "port": 8000, "served_model_name": ["chat"]}),
    ({}, {"trust_remote_code": False, "load_format": "safetensors", "max_num_seqs": 4}),
    ({}, {"enable_prefix_caching": True, "disable_uvicorn_access_log": True}),
    ({}, {"disable_fastapi_docs": True, "api_key": None, "quantization": None}),
    ({"context_length": 16384}, {"max_model_len": 16384}),
    ({"max_sequences": 64}, {"max_num_seqs": 64}),
    ({"max_batched_tokens": 8192}, {"max_num_batched_tokens": 8192}),
    ({"quantization": "fp8"}, {"quantization": "fp8_per_tensor"}),
    ({"kv_cache_dtype": "fp16"}, {"kv_cache_dtype": "float16"}),
    ({"kv_cache_dtype": "bf16"}, {"kv_cache_dtype": "bfloat16"}),
    ({"kv_cache_dtype": "fp8"}, {"kv_cache_dtype": "fp8"}),
    ({"kv_cache_dtype": "int8"}, {"kv_cache_dtype": "int8_per_token_head"}),
    ({"prefix_caching": False}, {"enable_prefix_caching": False}),
    ({"kv_host_offload": 8 << 30}, {"kv_offloading_size": 8.0}),
    ({"tensor_parallel": 2, "pipeline_parallel": 4}, {"tensor_parallel_size": 2}),
    ({"tensor_parallel": 2, "pipeline_parallel": 4}, {"pipeline_parallel_size": 4}),
    (
        {"speculative": Speculative("ngram", 6)},
        {
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": 6,
                "prompt_lookup_max": 4,
            }
        },
    ),
    (
        {"speculative": Speculative("draft", 3, vllm_cpu.MODEL)},
        {
            "speculative_config": {
                "method": "draft_model",
                "model": str(vllm_cpu.MODEL),
                "num_speculative_tokens": 3,
            }
        },
    ),
    ({"engine_args": (("enforce_eager", "true"),)}, {"enforce_eager": True}),
    (  # the last one counts
        {"context_length": 16384, "engine_args": (("max_model_len", "9"),)},
        {"max_model_len": 9},
    ),
]


@pytest.fixture(scope="session")
def answers() -> dict[str, Any]:
    """What vLLM's parser makes of each case's flags."""
    given = [flags(replace(DEFAULT, **options)) for options, _ in CASES]
    given.append(["--trust-remote-cod"])
    return dict(python(PARSER, json.dumps(given)))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_vllm_understands_each_option(answers: dict[str, Any], number: int) -> None:
    parsed = answers["parsed"][number]
    for name, value in CASES[number][1].items():
        assert parsed[name] == repr(value)


def test_what_is_refused_among_a_users_arguments_exists(answers: dict[str, Any]) -> None:
    elsewhere = {"model", "config", "headless", "grpc", "omni"}  # not of this part of the parser
    assert {f"--{name}" for name in RESERVED - elsewhere} <= set(answers["known"])


def test_the_parser_takes_beginnings_of_names(answers: dict[str, Any]) -> None:
    assert answers["parsed"][-1]["trust_remote_code"] == "True"
