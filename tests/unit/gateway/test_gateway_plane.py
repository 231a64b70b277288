"""What a gateway does before its event loop runs."""

import gc

from overspill.gateway.plane import run_loop


def test_a_collection_walks_none_of_what_the_imports_made() -> None:
    seen = []

    async def program() -> None:
        seen.append(len(gc.get_objects()))

    before = len(gc.get_objects())
    try:
        run_loop("error", program())
        assert before > 10_000
        assert seen[0] < before / 10
    finally:
        gc.unfreeze()
