"""`overspill chat`: talk to a service, through the API server's service proxy.

No port-forward and no ingress are needed. The proxy eats the Authorization header, so the key
travels as ``x-api-key``. Without $OVERSPILL_API_KEY a key for this one service is made for the
session and deleted at its end.
"""

import asyncio
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from overspill.api.identifiers import DNS_LABEL
from overspill.api.keys import key_secret, new_key
from overspill.api.sse import EventTooLarge
from overspill.cli import show
from overspill.cli.errors import USAGE, CommandError
from overspill.cli.options import Output, Target, connected
from overspill.cli.reply import Reply, error_message
from overspill.cli.sse import Parser
from overspill.cluster import Cluster, NotFound
from overspill.cluster.kinds import SECRET, SERVICE

ANSWER_SECONDS = 180.0  # of silence; longer than a gateway holds a request
KEY_SECONDS = 10.0  # within which every gateway has seen a new key
_SERVICE = re.compile(f"{DNS_LABEL[1:-1]}/{DNS_LABEL[1:-1]}")
Message = dict[str, str]


def run(target: Target, service: str, prompt: str, max_tokens: int, output: Output) -> None:
    """Ask once, or talk until the input ends.

    :param service: ``namespace/name``.
    :param prompt: empty means to read from standard input, line by line on a terminal.
    :param max_tokens: of each answer.
    :raises CommandError: when the service has no such name, or a question was not answered.
    """
    if not _SERVICE.fullmatch(service):
        text = f"{service} is no service: give the name of an InferenceService, or namespace/name"
        raise CommandError(text, USAGE)
    messages: list[Message] = []
    with _key(target, service) as key:
        talk = Talk(target, service, key, max_tokens, echo=output is Output.TEXT)
        for question in _questions(prompt):
            messages.append({"role": "user", "content": question})
            reply = connected(target, lambda cluster: talk.ask(cluster, messages))
            messages.append({"role": "assistant", "content": reply.answer})
            if output is Output.JSON:
                show.as_json({k: v for k, v in asdict(reply).items() if k != "error"})
            else:
                show.line()
                show.note(reply.note())


def _questions(prompt: str) -> Iterator[str]:
    """Yield the one prompt, all of a pipe, or line after line from a terminal.

    :raises CommandError: when the pipe is empty.
    """
    if prompt or not sys.stdin.isatty():
        question = prompt or sys.stdin.read()
        if not question.strip():
            raise CommandError("nothing to ask: give a prompt, or pipe one in", USAGE)
        yield question
        return
    while True:
        with suppress(EOFError):
            if question := input("> ").strip():
                yield question
            continue
        return


@contextmanager
def _key(target: Target, service: str) -> Iterator[str]:
    """Give the user's key, or one of our own that lives as long as the block."""
    if own := os.environ.get("OVERSPILL_API_KEY"):
        yield own
        return
    key, digest = new_key()
    name = f"key-session-{secrets.token_hex(4)}"
    tenant = service.split("/")[0]
    secret = key_secret(target.namespace, name, digest, tenant, (service,))
    connected(target, lambda cluster: cluster.create(SECRET, secret))
    try:
        yield key
    finally:
        connected(target, lambda cluster: _delete(cluster, target.namespace, name))


async def _delete(cluster: Cluster, namespace: str, name: str) -> None:
    with suppress(NotFound):
        await cluster.delete(SECRET, namespace, name)


@dataclass
class Talk:
    """A conversation with one service."""

    target: Target
    service: str
    key: str
    max_tokens: int
    echo: bool  # print the answer as it comes

    async def ask(self, cluster: Cluster, messages: list[Message]) -> Reply:
        """Send the conversation and read the answer.

        :raises CommandError: when the gateway, the engine or the provider did not answer.
        """
        deadline = asyncio.get_running_loop().time() + KEY_SECONDS
        while True:
            status, reply = await self._ask(cluster, messages)
            if status == 200 and not reply.error:
                return reply
            # A new key is not known everywhere at once.
            fresh = status == 401 and not os.environ.get("OVERSPILL_API_KEY")
            if not fresh or asyncio.get_running_loop().time() > deadline:
                raise _refused(self.service, status, reply.error)
            await asyncio.sleep(0.3)

    async def _ask(self, cluster: Cluster, messages: list[Message]) -> tuple[int, Reply]:
        body = {
            "model": self.service,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "stream": True,
        }
        headers = {"x-api-key": self.key, "Content-Type": "application/json"}
        headers["Accept"] = "text/event-stream"
        path = proxy_path(self.target) + "/v1/chat/completions"
        async with cluster.stream(
            "POST", path, body=body, headers=headers, idle=ANSWER_SECONDS
        ) as answer:
            reply = Reply.begun(answer.headers)
            if answer.status != 200:
                raw = b"".join([chunk async for chunk in answer.chunks])
                reply.error = raw.decode(errors="replace")
                return answer.status, reply
            parser = Parser()
            try:
                async for chunk in answer.chunks:
                    for delta in parser.feed(chunk):
                        reply.take(delta)
                        self._show(delta.text)
            except EventTooLarge as error:
                reply.error = str(error)
            if not parser.done and not reply.error:
                reply.error = "the stream broke off"
            return answer.status, reply

    def _show(self, text: str) -> None:
        if self.echo and text:
            sys.stdout.write(text)
            sys.stdout.flush()


def proxy_path(target: Target) -> str:
    """Return the gateway's path under the API server."""
    return SERVICE.path(target.namespace, f"{target.gateway}:http", "proxy")


_ADVICE: dict[int, str] = {
    401: "is OVERSPILL_API_KEY a key of this cluster? See `overspill keys list`",
    403: "the key, or your own right to services/proxy, does not cover it",
    404: "see `kubectl get infsvc -A` for the services there are",
    429: "the service is at its limit; try again",
    503: "see `overspill check`",
}


def _refused(service: str, status: int, body: str) -> CommandError:
    text = error_message(body) or f"HTTP {status}"
    advice = _ADVICE.get(status, "see `overspill check`")
    return CommandError(f"{service} did not answer: {text}; {advice}")
