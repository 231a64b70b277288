"""What keeps a tenant from finding out by time what another one has asked (CVE-2025-46570).

An engine answers sooner when it has the beginning of a prompt in its cache, whoever asked that
before. Requests of a service's own tenant go out as they are: who owns the namespace sees what
its pods see. Those of each other tenant get a part of the cache of their own (vLLM's
``cache_salt``), or none where an engine has no parts (llama.cpp's ``cache_prompt``). No client can
write either field. https://docs.vllm.ai/en/latest/design/prefix_caching.html#cache-isolation-for-security
"""

import hashlib

from overspill.api.engine import LLAMACPP, VLLM
from overspill.gateway.call import Endpoint


def cache_fields(endpoint: Endpoint, runtime: str, owner: str, tenant: str) -> bytes:
    """Return members that a body for an engine ends with, each with a comma before it.

    :param runtime: of the service; one of somebody's own says what it caches itself.
    :param owner: the service's namespace.
    :param tenant: of the key.
    """
    if tenant == owner or not endpoint.streams:  # no text is made, so nothing is cached
        return b""
    if runtime == VLLM:
        return b',"cache_salt":"%b"' % salt_of(tenant)
    return b',"cache_prompt":false' if runtime == LLAMACPP else b""


def salt_of(tenant: str) -> bytes:
    """Return the same for a tenant at every gateway: 128 bits as hexadecimal digits."""
    return hashlib.sha256(b"overspill cache " + tenant.encode()).hexdigest()[:32].encode()
