"""Which gateways the operator listens to."""

from typing import Any

import pytest

from overspill.controller.addresses import Addresses


@pytest.mark.parametrize(
    ("conditions", "heard"),
    [
        ({"ready": True}, True),
        ({}, True),  # unknown counts as ready
        (None, True),
        ({"ready": False}, False),  # starts
        ({"ready": False, "terminating": False}, False),
        # It still answers what it has, and gives its money back at the end.
        ({"ready": False, "terminating": True}, True),
    ],
)
def test_a_gateway_is_heard_until_it_has_ended(conditions: Any, heard: bool) -> None:
    nobody: Any = None
    addresses = Addresses(nobody, "overspill-system", "overspill-gateway-internal")
    endpoint = {"addresses": ["10.0.0.1"], "conditions": conditions}
    addresses._slices = {"a": {"ports": [{"port": 9090}], "endpoints": [endpoint]}}
    assert addresses() == ({"10.0.0.1:9090"} if heard else set())
