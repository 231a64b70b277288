import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# The gateway's own test world.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))

from gateway_world import Upstream, World, service, world


@pytest.fixture
async def engine() -> AsyncIterator[Upstream]:
    """A real server that plays an engine."""
    async with Upstream().serving() as upstream:
        yield upstream


@pytest.fixture
async def gateway(engine: Upstream) -> AsyncIterator[World]:
    """A gateway with one service, and one replica of it."""
    async with world() as w:
        w.state.put_service(service())
        w.replicas(engine)
        yield w
