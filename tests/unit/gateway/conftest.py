"""What most tests of the gateway need: one engine that answers."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from gateway_world import Upstream, World, service, world


@pytest.fixture
async def engine() -> AsyncIterator[Upstream]:
    """A real server that plays an engine."""
    async with Upstream().serving() as upstream:
        yield upstream


@pytest.fixture
async def cloud() -> AsyncIterator[Upstream]:
    """A real server that plays a cloud API; a file's own may say something else."""
    async with Upstream().serving() as upstream:
        yield upstream


@pytest.fixture
def spec() -> dict[str, Any]:
    """What the service of `gateway` says beyond its model; a file can say more."""
    return {}


@pytest.fixture
async def gateway(engine: Upstream, spec: dict[str, Any]) -> AsyncIterator[World]:
    """A gateway with one service, and one replica of it."""
    async with world() as w:
        w.state.put_service(service(**spec))
        w.replicas(engine)
        yield w
