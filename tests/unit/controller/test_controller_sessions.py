"""What kopf asks the API server for, and what of it is kept."""

import asyncio
import inspect
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from kopf._core.reactor import queueing

from overspill.controller.sessions import LOOK_SECONDS, MAX_TASKS, OF_OBJECT, ShallowResponse

ITEM = {"metadata": {"name": "chat", "managedFields": [{"manager": "overspill"}]}}


async def test_lists_are_without_managed_fields_and_other_answers_stay_as_they_are() -> None:
    assert await exchange({"metadata": {}, "items": []}) == {"metadata": {}, "items": []}
    assert await exchange({"items": [ITEM, ITEM]}) == {
        "items": [{"metadata": {"name": "chat"}}] * 2
    }
    assert await exchange(ITEM) == ITEM


async def test_a_page_waits_until_the_objects_of_others_were_looked_at() -> None:
    looked, body = asyncio.Event(), {"items": [ITEM]}
    watches = [asyncio.create_task(looked.wait(), name="watcher for x") for _ in range(MAX_TASKS)]
    assert (await exchange(body))["items"], "many namespaces keep nothing back"
    await asyncio.sleep(LOOK_SECONDS)
    name = f"{OF_OBJECT}('pods', 'u-1')"
    objects = [asyncio.create_task(looked.wait(), name=name) for _ in range(MAX_TASKS)]
    page = asyncio.create_task(exchange(body))
    done, _ = await asyncio.wait([page], timeout=3 * LOOK_SECONDS)
    assert not done
    looked.set()
    await asyncio.gather(*objects, *watches)
    assert len((await page)["items"]) == 1


def test_kopf_names_its_tasks_for_objects_as_they_are_counted() -> None:
    assert f"name=f'{OF_OBJECT}{{key}}'" in inspect.getsource(queueing.watcher)


async def exchange(answer: Any) -> Any:
    """Send a request as kopf's session does; return the body as kopf sees it."""

    async def serve(_: web.Request) -> web.Response:
        return web.json_response(answer)

    app = web.Application()
    app.router.add_get("/", serve)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession(response_class=ShallowResponse) as session,
        session.get(server.make_url("/")) as response,
    ):
        return await response.json()
