"""What most tests of the gateway need: one engine that answers."""

from collections.abc import AsyncIterator

import pytest
from gateway_world import Upstream


@pytest.fixture
async def engine() -> AsyncIterator[Upstream]:
    """A real server that plays an engine."""
    async with Upstream().serving() as upstream:
        yield upstream
