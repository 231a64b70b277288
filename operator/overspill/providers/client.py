"""To the right API: which module speaks with an account, and what it cannot say."""

from overspill.api.bodies import json_body
from overspill.api.provider import ModelInput, ProviderType
from overspill.providers import anthropic, openai
from overspill.providers.base import Account, Answer, Request, Unsupported
from overspill.providers.chat_as_messages import ChatAsMessages
from overspill.providers.chat_to_prediction import input_of
from overspill.providers.http import Http
from overspill.providers.replicate import Predictions
from overspill.providers.translated import Translated


class ProviderClient:
    """Sends requests to any provider.

    :param http: the connections.
    """

    def __init__(self, http: Http) -> None:
        self._http = http
        self._predictions = Predictions(http)

    async def send(self, account: Account, request: Request, model: str, patience: float) -> Answer:
        """Send a request and return once the head of the answer is there.

        :param model: the provider's name of the model.
        :param patience: seconds from the sent request to status and headers.
        :return: the answer in the form of the client's API.
        :raises Unsupported: when the account's API cannot express it.
        :raises RequestRefused: for a fault of the request.
        :raises ProviderUnusable: for everything else that is no answer.
        """
        # Only bytes stay until the answer begins: parsed, a body takes several times as much.
        if account.type is ProviderType.ANTHROPIC:
            body = json_body(anthropic.body_for(request, model))
            headers = anthropic.headers(account)
            answer = await self._http.post(account, anthropic.PATH, body, headers, patience)
            return anthropic.as_chat(answer) if request.messages is None else answer
        if account.type is ProviderType.REPLICATE:
            made = await self._predictions.send(account, request, model, patience)
            return in_clients_form(request, made)
        body = json_body(openai.body_for(account.type, request, model))
        path, headers = openai.path_of(account, request, model), openai.headers(account)
        answer = await self._http.post(account, path, body, headers, patience)
        return in_clients_form(request, answer)

    async def close(self) -> None:
        """End all connections."""
        await self._predictions.close()
        await self._http.close()


def in_clients_form(request: Request, answer: Answer) -> Answer:
    """Return an answer that came in OpenAI's form, an engine's too, in the client's."""
    if request.messages is None or request.path != openai.CHAT:
        return answer
    return Translated(answer, ChatAsMessages())


def unsupported(
    kind: ProviderType, request: Request, inputs: frozenset[ModelInput] = frozenset()
) -> Unsupported | None:
    """Return what an API cannot express of a request, None when it can say all of it.

    :param inputs: that the model takes, where each has its own.
    """
    try:
        if kind is ProviderType.ANTHROPIC:
            anthropic.body_for(request, "")
        elif kind is ProviderType.REPLICATE:
            input_of(openai.conversation_of(request), inputs)
        else:
            return openai.unsupported(request)
    except Unsupported as error:
        return error
    return None
