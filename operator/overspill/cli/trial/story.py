"""What is shown: an answer from here, a burst of which a part spills, a budget that stops that."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from overspill.cli import show
from overspill.cli.errors import CommandError
from overspill.cli.trial import objects
from overspill.cli.trial.client import Answer, Client
from overspill.cli.trial.meter import Meter, Reading
from overspill.cli.trial.screen import Screen

TOKENS = 48  # of an answer of a burst
CROWD = 16  # questions at once
BUDGET = "0.004"  # US dollars a day: four or five such answers at gpt-5.2's price
LOOK_SECONDS = 0.5  # between two looks at the meter
COUNTED_SECONDS = 30.0  # for the gateway to count an answer that is here
FOLLOWED_SECONDS = 30.0  # for the gateway to have read a file that changed
PRICED = f"${objects.PRICE['inputPerMTok']} in and ${objects.PRICE['outputPerMTok']} out"

INTRODUCTION = (
    "Overspill without a cluster, a GPU or a key: a real engine with a small real model, the real",
    "gateway, and a stand-in for the cloud, all on this machine. Nothing leaves it, and nobody is",
    "paid: the stand-in is the same small model once more, counted at gpt-5.2's list price",
    f"({PRICED} for a million tokens), and this machine counts as ${objects.GPU_HOUR} an hour.",
)
QUESTIONS = (
    "What is a queue good for?",
    "Name three uses of copper.",
    "Why is the sky blue?",
    "What does a librarian do?",
    "How does a bicycle stay upright?",
    "Describe the taste of an apple.",
)


class Story:
    """Tells it, and keeps the meter going.

    :param folder: of the gateway's objects.
    """

    def __init__(self, screen: Screen, client: Client, meter: Meter, folder: Path) -> None:
        self._screen, self._client, self._meter, self._folder = screen, client, meter, folder
        self._budget, self._asked = "", 0

    async def watch(self) -> None:
        """Keep the meter going, for ever."""
        while True:
            self._screen.meter = (await self._meter.read()).line(self._budget)
            await asyncio.sleep(LOOK_SECONDS)

    async def tell(self) -> None:
        """Tell all of it.

        :raises CommandError: when something was not so.
        """
        for stage in (self._answer, self._burst, self._stop):
            await stage()
            self._screen.note(f"So far: {(await self._look()).line(self._budget)}")
        _table(await self._look(), self._meter.seconds)

    async def _look(self) -> Reading:
        """Return how things stand, once all answers are counted: the last is just after its end.

        :raises CommandError: when one is not.
        """
        try:
            async with asyncio.timeout(COUNTED_SECONDS):
                while True:
                    reading = await self._meter.read()
                    if reading.here.answers + reading.cloud.answers >= self._asked:
                        return reading
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise CommandError("the gateway did not count all answers") from None

    async def _answer(self) -> None:
        screen = self._screen
        screen.step("An answer from here")
        self._asked += 1
        answer = await self._client.ask("What is a rainbow? Answer briefly.", 64, screen.stream)
        _check([answer])
        screen.whole()
        screen.note(f'"{" ".join(answer.reply.answer.split())}"')
        screen.note(f"{answer.reply.note()} first token after {answer.first:.2f} s, then streamed")

    async def _burst(self) -> None:
        screen = self._screen
        screen.step(f"{CROWD} questions at once")
        screen.note(
            f"The engine computes {objects.SEQUENCES} at a time; who would wait longer than "
            f"{objects.WAIT} spills."
        )
        here, cloud = await self._crowd()
        if not cloud:
            raise CommandError("nothing spilled: this machine is too fast for the show")
        for answers in (here, cloud):
            screen.note(_sum(answers))

    async def _stop(self) -> None:
        screen = self._screen
        screen.step(f"A budget of ${BUDGET} a day, and the same questions again")
        objects.service(self._folder, BUDGET)
        screen.note(f"spillover.budget is in {self._folder / 'service.yaml'}, which is read again.")
        await self._meter.followed(BUDGET, FOLLOWED_SECONDS)
        self._budget, before = BUDGET, await self._look()
        here, cloud = await self._crowd()
        after = await self._look()
        spent = after.cloud.dollars - before.cloud.dollars
        for answers in (here, cloud):
            screen.note(_sum(answers))
        if spent > float(BUDGET) or not after.refused:
            raise CommandError(f"the budget did not stop it: ${spent:.4f} of ${BUDGET} were spent")
        screen.note(
            f"${spent:.4f} of ${BUDGET} spent. What a request may cost at most is set aside until "
            "it is answered: for the others there was no room, so they waited for this machine."
        )

    async def _crowd(self) -> tuple[list[Answer], list[Answer]]:
        """Ask many at once; return what was answered here, and what in the cloud."""
        questions = [QUESTIONS[i % len(QUESTIONS)] for i in range(CROWD)]
        self._asked += CROWD
        answers = await self._client.burst(questions, TOKENS)
        _check(answers)
        return [a for a in answers if a.here], [a for a in answers if not a.here]


def _check(answers: Sequence[Answer]) -> None:
    """:raises CommandError: when one was not answered."""
    failed = [answer.reply.error for answer in answers if answer.reply.error]
    if failed:
        raise CommandError(f"{len(failed)} of {len(answers)} were not answered: {failed[0]}")


def _sum(answers: Sequence[Answer]) -> str:
    """Return what became of those who went one way."""
    if not answers:
        return "0 spilled"
    firsts = f"first token after {median(a.first for a in answers):.1f} s (median)"
    if answers[0].here:
        slowest = max(answer.first for answer in answers)
        return f"{len(answers)} were answered here, {firsts}, the last after {slowest:.1f} s"
    dollars = sum(float(answer.reply.cost_usd or 0) for answer in answers)
    reasons = ", ".join(sorted({answer.reply.reason for answer in answers}))
    return f"{len(answers)} spilled ({reasons}) for ${dollars:.4f}, {firsts}"


def _table(reading: Reading, seconds: float) -> None:
    """Print what both sides cost, and what one of them alone would have."""
    here, cloud = reading.here, reading.cloud
    show.line()
    rows = [
        (f"this machine, {seconds:.0f} s at ${objects.GPU_HOUR}/h", here, reading.own),
        ("the stand-in, at gpt-5.2's price", cloud, cloud.dollars),
    ]
    both = here.at_cloud_price + cloud.at_cloud_price
    show.table(
        ("where", "answers", "tokens", "dollars"),
        [
            *(
                (what, str(s.answers), str(sum(s.tokens.values())), f"{d:.4f}")
                for what, s, d in rows
            ),
            ("all of it at gpt-5.2's price", str(here.answers + cloud.answers), "", f"{both:.4f}"),
        ],
    )
