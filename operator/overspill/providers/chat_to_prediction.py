"""An OpenAI chat request as the input of a prediction at Replicate.

Every language model there has inputs of its own, and what it does not know it drops without a
word; so the provider's object lists the inputs of each model, and only those are sent. Everything
that is asked is said in these or refused by name. Left out without a word are, beside what
`neutral` lists, the reasoning of earlier turns and ``user``, a label that changes no answer.

https://replicate.com/docs/reference/http#models.predictions.create
"""

from itertools import takewhile
from typing import Any

from overspill.api.provider import ModelInput
from overspill.providers.base import Fields, Unsupported
from overspill.providers.chat_to_messages import only
from overspill.providers.neutral import says_nothing

Inputs = frozenset[ModelInput]

# Models have small limits of their own, which they obey without saying so; with one of ours it is
# known whether an answer has reached it. As a budget counts with where a request names none.
DEFAULT_MAX_TOKENS = 4096
_LIMITS = (
    ModelInput.MAX_TOKENS,
    ModelInput.MAX_COMPLETION_TOKENS,
    ModelInput.MAX_OUTPUT_TOKENS,
    ModelInput.MAX_NEW_TOKENS,
)
_SYSTEM = (ModelInput.SYSTEM_PROMPT, ModelInput.SYSTEM_INSTRUCTION)
_LEADING = ("system", "developer")  # roles
_MANY_IMAGES = (ModelInput.IMAGE_INPUT, ModelInput.IMAGES)
# Fields that models know by the same name.
_SAME = (
    "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty",
    "reasoning_effort", "verbosity",
)  # fmt: skip
_TRANSLATED = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "user", *_SAME}
)
_THOUGHTS = {"reasoning_content", "reasoning"}
NO_INPUT = "this provider's model has no such input"


def input_of(fields: Fields, inputs: Inputs) -> Fields:
    """Return the input of a prediction.

    :param fields: of a chat request whose types and bounds were checked.
    :param inputs: that the model takes.
    :raises Unsupported: for the first thing that the model cannot be told.
    """
    for name, value in fields.items():
        if name not in _TRANSLATED and not says_nothing(name, value):
            raise Unsupported(name, "this provider's API has no such field")
    limit = _first("max_tokens", _LIMITS, inputs)
    told = {
        **_conversation(fields["messages"], inputs),
        limit: limit_of(fields),
        **_sampling(fields, inputs),
        **_stops(fields.get("stop"), inputs),
    }
    return {str(name): value for name, value in told.items()}


def limit_of(fields: Fields) -> int:
    """Return the most tokens of an answer."""
    found: int | None = fields.get("max_completion_tokens") or fields.get("max_tokens")
    return found or DEFAULT_MAX_TOKENS


def _first(field: str, names: tuple[ModelInput, ...], inputs: Inputs) -> ModelInput:
    """Return the one of several names that the model uses."""
    found = next((name for name in names if name in inputs), None)
    if found is None:
        raise Unsupported(field, NO_INPUT)
    return found


def _sampling(fields: Fields, inputs: Inputs) -> Fields:
    found = {}
    for name in _SAME:
        value = fields.get(name)
        if value is None or (name == "top_k" and says_nothing(name, value)):
            continue
        if name in inputs:  # a neutral value, too: a model may have another default
            found[name] = value
        elif not says_nothing(name, value):
            raise Unsupported(name, NO_INPUT)
    return found


def _stops(stop: Any, inputs: Inputs) -> Fields:
    """A list in one string, separated by commas."""
    stops = [stop] if isinstance(stop, str) else stop or []
    if not stops:
        return {}
    name = _first("stop", (ModelInput.STOP_SEQUENCES,), inputs)
    if any("," in text or text != text.strip() or not text for text in stops):
        raise Unsupported("stop", "this provider's API knows none with commas or white space ends")
    return {name: ",".join(stops)}


# messages


def _conversation(messages: list[Fields], inputs: Inputs) -> Fields:
    """Return a prompt where that says it all, else the list of messages."""
    try:
        return _one_prompt(messages, inputs)
    except Unsupported:
        if ModelInput.MESSAGES not in inputs:
            raise
    return {ModelInput.MESSAGES: [_turn(f"messages[{i}]", m) for i, m in enumerate(messages)]}


def _one_prompt(messages: list[Fields], inputs: Inputs) -> Fields:
    """Return the inputs that a user's only message becomes, with a system prompt before it."""
    head = len(list(takewhile(lambda message: message["role"] in _LEADING, messages)))
    others = [i for i in range(head, len(messages)) if i > head or messages[i]["role"] != "user"]
    if others or head == len(messages):
        where = f"messages[{others[0]}]" if others else "messages"
        raise Unsupported(where, "this provider's model takes one prompt")
    system = "\n".join(_text(f"messages[{i}]", messages[i]) for i in range(head))
    told = {_first("messages[0]", _SYSTEM, inputs): system} if system else {}
    return told | _prompt(f"messages[{head}]", messages[head], inputs)


def _prompt(where: str, message: Fields, inputs: Inputs) -> Fields:
    only(where, message, {"role", "content"})
    parts = _parts(where, message.get("content"))
    texts = [part["text"] for _, part in parts if part["type"] == "text"]
    images = [(at, part) for at, part in parts if part["type"] == "image_url"]
    said: Fields = {_first(where, (ModelInput.PROMPT,), inputs): "\n".join(texts)}
    if not images:
        return said
    urls = [_image(at, part) for at, part in images]
    if len(urls) == 1 and ModelInput.IMAGE in inputs:
        return said | {ModelInput.IMAGE: urls[0]}
    return said | {_first(images[0][0], _MANY_IMAGES, inputs): urls}


def _turn(where: str, message: Fields) -> Fields:
    role = "system" if message["role"] == "developer" else message["role"]
    if role not in ("system", "user", "assistant"):
        raise Unsupported(f"{where}.role", "must be system, developer, user or assistant")
    return {"role": role, "content": _text(where, message)}


def _text(where: str, message: Fields) -> str:
    """Return the text of a message that may hold nothing else."""
    thoughts = _THOUGHTS if message["role"] == "assistant" else set()
    only(where, message, {"role", "content"} | thoughts)
    texts = []
    for at, part in _parts(where, message.get("content")):
        if part["type"] != "text":
            raise Unsupported(at, "only text can be said here")
        texts.append(part["text"])
    return "\n".join(texts)


def _parts(where: str, content: Any) -> list[tuple[str, Fields]]:
    """Return each part of a content with its name; texts are strings."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    found = []
    for index, part in enumerate(parts):
        at = f"{where}.content[{index}]"
        if part["type"] == "text":
            only(at, part, {"type", "text"})
            if not isinstance(part.get("text"), str):
                raise Unsupported(f"{at}.text", "must be a string")
        elif part["type"] != "image_url":
            raise Unsupported(at, f"this provider's API has no {part['type']}")
        found.append((at, part))
    return found


def _image(where: str, part: Fields) -> str:
    only(where, part, {"type", "image_url"})
    image = part["image_url"]
    if image.get("detail") not in (None, "auto"):
        raise Unsupported(f"{where}.image_url.detail", "this provider's API knows no detail")
    return str(image["url"])
