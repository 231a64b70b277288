"""A prediction at Replicate as an OpenAI chat completion, whole or streamed.

https://replicate.com/docs/topics/predictions
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from typing import Any

from overspill.api import sse
from overspill.providers.base import Fields
from overspill.providers.messages_as_chat import head_of


class PredictionAsChat:
    """Translates one answer.

    :param model: the provider's name of it.
    :param limit: the most tokens that the answer may have.
    """

    def __init__(self, model: str, limit: int) -> None:
        self._model, self._limit = model, limit
        self._begun = False

    def whole(self, prediction: Fields) -> Fields:
        """Return a chat completion.

        :param prediction: one that has succeeded.
        """
        message = {"role": "assistant", "content": text_of(prediction)}
        choice = {"index": 0, "message": message, "finish_reason": self._finish(prediction)}
        return {**self._head(prediction, ""), "choices": [choice], "usage": usage_of(prediction)}

    def said(self, prediction: Fields, text: str) -> bytes:
        """Return the chunk that brings a piece of the text."""
        role = {} if self._begun else {"role": "assistant"}
        self._begun = True
        return self._chunk(prediction, {**role, "content": text})

    def end(self, prediction: Fields) -> bytes:
        """Return the last chunks of a prediction that has succeeded."""
        finish = self._chunk(prediction, {}, self._finish(prediction))
        head, usage = self._head(prediction, ".chunk"), usage_of(prediction)
        told = sse.json_event({**head, "choices": [], "usage": usage}) if usage else b""
        return finish + told + sse.DONE

    def _chunk(self, prediction: Fields, delta: Fields, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return sse.json_event({**self._head(prediction, ".chunk"), "choices": [choice]})

    def _head(self, prediction: Fields, kind: str) -> Fields:
        named = {"id": prediction["id"], "model": self._model}
        return head_of(named, f"chat.completion{kind}")

    def _finish(self, prediction: Fields) -> str:
        """Replicate says only how many tokens were made, not why it ended."""
        usage = usage_of(prediction)
        return "length" if usage and usage["completion_tokens"] >= self._limit else "stop"


def text_of(prediction: Fields) -> str:
    """Return what was said so far: a string, or a list of its pieces.

    :raises TypeError: when it is neither.
    """
    output: Any = prediction.get("output")
    if output is None or isinstance(output, str):
        return output or ""
    return "".join(output)


def usage_of(prediction: Fields) -> Fields | None:
    """Return the usage that official language models tell, None where it is not told.

    https://replicate.com/docs/topics/predictions
    """
    metrics = prediction.get("metrics")
    counts = metrics if isinstance(metrics, dict) else {}
    prompt, completion = counts.get("input_token_count"), counts.get("output_token_count")
    if type(prompt) is not int or type(completion) is not int:
        return None
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
