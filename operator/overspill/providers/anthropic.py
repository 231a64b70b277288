"""Anthropic's Messages API: what goes there for an OpenAI chat, and how it comes back.

https://platform.claude.com/docs/en/api/messages
"""

from overspill.providers import openai
from overspill.providers.base import Account, Answer, Fields, Request
from overspill.providers.chat_to_messages import messages_of
from overspill.providers.messages_as_chat import MessagesAsChat
from overspill.providers.translated import Translated

PATH = "/messages"
VERSION = "2023-06-01"  # of the API; https://platform.claude.com/docs/en/api/versioning


def headers(account: Account) -> dict[str, str]:
    """Return the headers that prove who asks and name the version."""
    return {"x-api-key": account.secret, "anthropic-version": VERSION}


def body_for(request: Request, model: str) -> Fields:
    """Return the body of a Messages request.

    :param model: the provider's name of it.
    :raises Unsupported: for what it cannot express.
    """
    if request.messages is not None:
        return _own(request.messages, model)
    return messages_of(openai.conversation_of(request), model)


def _own(messages: Fields, model: str) -> Fields:
    """Return a Messages request as it came, but for the thoughts of models that sign none."""
    turns = [_signed(turn) for turn in messages["messages"]]
    return messages | {"model": model, "messages": [turn for turn in turns if turn["content"]]}


def _signed(turn: Fields) -> Fields:
    if isinstance(turn["content"], str):
        return turn
    unsigned = [b for b in turn["content"] if b["type"] == "thinking" and not b.get("signature")]
    return turn | {"content": [b for b in turn["content"] if b not in unsigned]}


def as_chat(answer: Answer) -> Answer:
    """Return an answer in OpenAI's form."""
    return Translated(answer, MessagesAsChat())
