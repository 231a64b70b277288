"""Which service a model name means, for one key.

``namespace/name`` addresses a service exactly. A served name means a service that the key
covers: one of the key's own tenant first, then the oldest. A service that the key does not
cover does not exist for it: the answer is the same 404.
"""

from overspill.api.keys import ClientKey
from overspill.gateway.errors import ApiError
from overspill.gateway.state import Service, State

MAX_CACHED = 10_000  # answers remembered between two changes of the state


class Resolver:
    """Finds services, remembering answers until names or keys change."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._generation = -1
        self._cache: dict[tuple[str, str], Service] = {}
        self._by_name: dict[str, list[Service]] = {}

    def resolve(self, key: ClientKey, model: str) -> Service:
        """Return the service.

        :raises ApiError: 404 when there is none for this key.
        """
        if self._generation != self._state.generation:
            self._index()
        found = self._cache.get((key.id, model))
        if found is None:
            found = self._find(key, model)
            if found is None:
                raise ApiError(
                    404,
                    "model_not_found",
                    f"The model {model[:100]!r} does not exist or this key may not use it; "
                    "GET /v1/models lists what it may.",
                    param="model",
                )
            if len(self._cache) < MAX_CACHED:
                self._cache[(key.id, model)] = found
        return found

    def visible(self, key: ClientKey) -> list[tuple[str, Service]]:
        """Return what the key may use: the name to send, and the service it means."""
        if self._generation != self._state.generation:
            self._index()
        names: list[tuple[str, Service]] = []
        for service in sorted(self._state.services.values(), key=_age):
            if key.allows(service.namespace, service.resource.metadata.name):
                served = service.resource.served_name
                wins = self._find(key, served) is service
                names.append((served if wins else service.key, service))
        return names

    def _index(self) -> None:
        self._generation = self._state.generation
        self._cache.clear()
        self._by_name = {}
        for service in sorted(self._state.services.values(), key=_age):
            self._by_name.setdefault(service.resource.served_name, []).append(service)

    def _find(self, key: ClientKey, model: str) -> Service | None:
        if "/" in model:
            exact = self._state.services.get(model)
            candidates = [] if exact is None else [exact]
        else:
            candidates = self._by_name.get(model, [])
        allowed = [s for s in candidates if key.allows(s.namespace, s.resource.metadata.name)]
        return min(allowed, key=lambda s: s.namespace != key.tenant, default=None)


def _age(service: Service) -> tuple[str, str]:
    return service.resource.metadata.creation_timestamp, service.key
