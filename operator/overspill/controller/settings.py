"""What the operator is told by its environment; the chart sets it."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from overspill.api.values import parse_duration


class SettingsError(ValueError):
    """A variable cannot be used; the text names it and the remedy."""


@dataclass(frozen=True)
class Settings:
    """The operator's settings. Durations in seconds."""

    namespace: str  # of the release: gateway, lease
    engine_image: str  # llama.cpp's, and of the helpers in a replica's pod
    engine_gpu_image: str  # vLLM's
    lease: str = "overspill-operator"  # elects the operator that acts
    ledger: str = "overspill-ledger"  # the ConfigMap of what was spent
    gateway_service: str = "overspill-gateway"
    gateway_port: int = 80  # of that Service
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    scrape_namespaces: tuple[str, ...] = ()  # whose pods may read the engines' metrics
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()  # names of Secrets in the services' namespaces
    prometheus_url: str = ""
    prometheus_credentials: Path | None = None  # folder; None: it asks for none
    recording_rules: bool = False  # Prometheus has the chart's
    token_file: str = "/var/run/secrets/overspill/gateway-token"  # noqa: S105 - a path
    interval: float = 5.0  # of the autoscaler
    up_window: float = 10.0
    down_window: float = 300.0
    log_level: str = "info"
    metrics_port: int = 9090
    identity: str = ""

    @property
    def url(self) -> str:
        """Base URL of the gateway for OpenAI clients in the cluster."""
        port = "" if self.gateway_port == 80 else f":{self.gateway_port}"
        return f"http://{self.gateway_service}.{self.namespace}.svc{port}/v1"

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read ``OVERSPILL_*``.

        :raises SettingsError: for a variable that is missing or wrong.
        """
        return cls(
            namespace=_required(env, "OVERSPILL_NAMESPACE"),
            engine_image=_required(env, "OVERSPILL_ENGINE_IMAGE"),
            engine_gpu_image=_required(env, "OVERSPILL_ENGINE_GPU_IMAGE"),
            lease=env.get("OVERSPILL_LEASE") or cls.lease,
            ledger=env.get("OVERSPILL_LEDGER") or cls.ledger,
            gateway_service=env.get("OVERSPILL_GATEWAY_SERVICE") or cls.gateway_service,
            gateway_port=_port(env, "OVERSPILL_GATEWAY_PORT", cls.gateway_port),
            watch_namespaces=_names(env, "OVERSPILL_WATCH_NAMESPACES"),
            scrape_namespaces=_names(env, "OVERSPILL_SCRAPE_NAMESPACES"),
            pull_policy=env.get("OVERSPILL_ENGINE_PULL_POLICY") or cls.pull_policy,
            pull_secrets=_names(env, "OVERSPILL_ENGINE_PULL_SECRETS"),
            prometheus_url=env.get("OVERSPILL_PROMETHEUS_URL", ""),
            prometheus_credentials=_folder(env, "OVERSPILL_PROMETHEUS_CREDENTIALS"),
            recording_rules=_flag(env, "OVERSPILL_RECORDING_RULES"),
            token_file=env.get("OVERSPILL_GATEWAY_TOKEN_FILE") or cls.token_file,
            interval=_seconds(env, "OVERSPILL_AUTOSCALER_INTERVAL", cls.interval),
            up_window=_seconds(env, "OVERSPILL_UP_WINDOW", cls.up_window),
            down_window=_seconds(env, "OVERSPILL_DOWN_WINDOW", cls.down_window),
            log_level=env.get("OVERSPILL_LOG_LEVEL") or cls.log_level,
            metrics_port=_port(env, "OVERSPILL_METRICS_PORT", cls.metrics_port),
            identity=env.get("OVERSPILL_IDENTITY") or socket.gethostname(),
        )


def _required(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise SettingsError(f"{name} is not set; the Helm chart sets it")
    return env[name]


def _names(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(n.strip() for n in env.get(name, "").split(",") if n.strip())


def _folder(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]) if env.get(name) else None


def _flag(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name) or "false"
    if text not in ("true", "false"):
        raise SettingsError(f"{name}: {text!r} is neither true nor false")
    return text == "true"


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from error
    if seconds <= 0:
        raise SettingsError(f"{name} must be longer than 0s")
    return seconds


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise SettingsError(f"{name}: {text!r} is not a port from 1 to 65535")
    return int(text)
