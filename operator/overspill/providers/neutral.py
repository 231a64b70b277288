"""Fields of a request that may be left out, because they ask for nothing.

What an API has no field for is told to the client, never dropped; these alone go without a word:
a value that is what every API does anyway, and labels that change no answer.
"""

from typing import Any

from overspill.providers.base import Fields

# Notes for the provider's own records and caches. They are not sent: nobody may ask a provider,
# with a key of ours, to keep an answer, or to compute it at another price.
LABELS = frozenset(
    {"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
    | {"stream_options"}
)
# field: the values that say nothing
_NEUTRAL: Fields = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "functions": ([],),
    "tools": ([],),
    "response_format": ({"type": "text"},),
    "verbosity": ("medium",),
    "parallel_tool_calls": (True,),
    # of engines
    "top_k": (-1, 0),
    "min_p": (0,),
    "typical_p": (1,),
    "repeat_penalty": (1,),
    "repetition_penalty": (1,),
    "ignore_eos": (False,),
    "min_tokens": (0,),
}


def says_nothing(name: str, value: Any) -> bool:
    """Whether a field of an OpenAI request may be left out."""
    return value is None or name in LABELS or value in _NEUTRAL.get(name, ())
