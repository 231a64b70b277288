"""Settings from the environment, which the chart sets: ``OVERSPILL_GATEWAY_*`` and the proxy."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from overspill.api.names import GATEWAY_INTERNAL_PORT, GATEWAY_PORT
from overspill.api.values import parse_duration
from overspill.providers.proxy import Proxy

PREFIX = "OVERSPILL_GATEWAY_"


class InvalidSetting(ValueError):
    """A variable that is missing or wrong; the text names it and the remedy."""


@dataclass(frozen=True)
class Settings:
    """How a gateway runs. Times in seconds.

    :param release_namespace: where clients' keys are, and the operator.
    :param watch_namespaces: where services and providers are; empty means everywhere.
    :param operator_service_account: who may read ``/demand``.
    :param service_account: the gateway's own, for the commands that grant it a right.
    :param internal_service: the Service whose endpoints are all gateways of the release.
    :param max_body: bytes of a request's body.
    :param memory: bytes that the process may take.
    :param queue_bound: requests that may wait per service.
    :param hold: longest wait for a replica.
    :param drain: for requests to end at a shutdown.
    :param instance: tells gateways apart.
    :param proxy: on the way to providers.
    """

    release_namespace: str
    watch_namespaces: tuple[str, ...] = ()
    operator_service_account: str = "overspill-operator"
    service_account: str = "overspill-gateway"
    internal_service: str = "overspill-gateway-internal"
    port: int = GATEWAY_PORT
    internal_port: int = GATEWAY_INTERNAL_PORT
    max_body: int = 10 * 1024 * 1024
    memory: int = 1024 * 1024 * 1024
    queue_bound: int = 100
    hold: float = 120.0
    drain: float = 120.0
    log_level: str = "info"
    instance: str = ""
    proxy: Proxy | None = None

    @property
    def operator_user(self) -> str:
        """User name of the operator's service account."""
        return f"system:serviceaccount:{self.release_namespace}:{self.operator_service_account}"


def from_env(env: Mapping[str, str], release_namespace: str = "") -> Settings:
    """Read the settings.

    :param release_namespace: where none is set.
    :raises InvalidSetting: with the variable's name.
    """

    def text(name: str, default: str) -> str:
        return env.get(PREFIX + name, "").strip() or default

    def number(name: str, default: int) -> int:
        value = text(name, str(default))
        if not value.isdigit():
            raise InvalidSetting(f"{PREFIX}{name}={value!r}: must be a whole number")
        return int(value)

    def seconds(name: str, default: str) -> float:
        try:
            return parse_duration(text(name, default))
        except ValueError as error:
            raise InvalidSetting(f"{PREFIX}{name}: {error}") from None

    namespace = text("RELEASE_NAMESPACE", release_namespace)
    if not namespace:
        raise InvalidSetting(f"{PREFIX}RELEASE_NAMESPACE: must be the namespace of the release")
    try:
        proxy = Proxy.from_env(env)
    except ValueError as error:
        raise InvalidSetting(f"HTTPS_PROXY: {error}") from None
    watched = (n.strip() for n in text("WATCH_NAMESPACES", "").split(","))
    return Settings(
        release_namespace=namespace,
        watch_namespaces=tuple(n for n in watched if n),
        operator_service_account=text("OPERATOR_SERVICE_ACCOUNT", "overspill-operator"),
        service_account=text("SERVICE_ACCOUNT", "overspill-gateway"),
        internal_service=text("INTERNAL_SERVICE", "overspill-gateway-internal"),
        port=number("PORT", GATEWAY_PORT),
        internal_port=number("INTERNAL_PORT", GATEWAY_INTERNAL_PORT),
        max_body=number("MAX_BODY_BYTES", 10 * 1024 * 1024),
        memory=number("MEMORY_BYTES", 1024 * 1024 * 1024),
        queue_bound=number("QUEUE_BOUND", 100),
        hold=seconds("HOLD", "120s"),
        drain=seconds("DRAIN", "120s"),
        log_level=text("LOG_LEVEL", "info"),
        instance=text("INSTANCE", uuid.uuid4().hex),
        proxy=proxy,
    )
