"""What kopf asks the API server for, and what of it is kept."""

import asyncio
import inspect
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kopf._core.reactor import queueing

from overspill.controller import handlers
from overspill.controller.sessions import (
    LOOK_SECONDS,
    MAX_TASKS,
    OF_OBJECT,
    ShallowResponse,
    metadata_of_children,
)
from overspill.controller.views import CHILD_SELECTOR

ITEM = {"metadata": {"name": "chat-engine", "managedFields": [{"manager": "overspill"}]}}
LISTS: list[Any] = [None, [], [ITEM, ITEM]]


@pytest.mark.parametrize("items", LISTS)
@pytest.mark.parametrize(
    ("query", "accepted"),
    [
        ({"labelSelector": CHILD_SELECTOR}, "PartialObjectMetadataList"),
        ({"labelSelector": CHILD_SELECTOR, "limit": "500"}, "PartialObjectMetadataList"),
        ({"limit": "500"}, ""),
    ],
)
async def test_lists_of_children_are_metadata_and_every_list_is_one(
    query: dict[str, str], accepted: str, items: list[Any] | None
) -> None:
    body, asked = await exchange(query, {"metadata": {}, "items": items})
    assert asked == (f"application/json;as={accepted};v=v1;g=meta.k8s.io" if accepted else "*/*")
    assert body == {
        "metadata": {},
        "items": [{"metadata": {"name": "chat-engine"}}] * len(items or ()),
    }


async def test_a_watch_of_children_tells_metadata_and_other_answers_stay_as_they_are() -> None:
    body, asked = await exchange({"labelSelector": CHILD_SELECTOR, "watch": "true"}, ITEM)
    assert asked == "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    assert body == ITEM


async def test_a_page_waits_until_the_objects_of_others_were_looked_at() -> None:
    looked, body = asyncio.Event(), {"items": [ITEM]}
    watches = [asyncio.create_task(looked.wait(), name="watcher for x") for _ in range(MAX_TASKS)]
    assert (await exchange({}, body))[0]["items"], "many namespaces keep nothing back"
    await asyncio.sleep(LOOK_SECONDS)
    name = f"{OF_OBJECT}('pods', 'u-1')"
    objects = [asyncio.create_task(looked.wait(), name=name) for _ in range(MAX_TASKS)]
    page = asyncio.create_task(exchange({}, body))
    done, _ = await asyncio.wait([page], timeout=3 * LOOK_SECONDS)
    assert not done
    looked.set()
    await asyncio.gather(*objects, *watches)
    found, _asked = await page
    assert len(found["items"]) == 1


def test_kopf_names_its_tasks_for_objects_as_they_are_counted() -> None:
    assert f"name=f'{OF_OBJECT}{{key}}'" in inspect.getsource(queueing.watcher)


def test_all_that_is_watched_by_label_is_asked_for_in_this_way() -> None:
    selectors = handlers.settings().watching.label_selectors
    assert {selectors[kind.plural] for kind in handlers.WATCHED} == {CHILD_SELECTOR}


async def exchange(query: dict[str, str], answer: Any) -> tuple[Any, str]:
    """Send a request as kopf's session does; return the body as kopf sees it, and the Accept."""
    asked = []

    async def serve(request: web.Request) -> web.Response:
        asked.append(request.headers["Accept"])
        return web.json_response(answer)

    app = web.Application()
    app.router.add_get("/", serve)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession(
            response_class=ShallowResponse, middlewares=(metadata_of_children,)
        ) as session,
        session.get(server.make_url("/").with_query(query)) as response,
    ):
        return await response.json(), asked[0]
