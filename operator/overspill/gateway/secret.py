"""The API key in a provider's Secret.

It is used only when the Secret's own annotation names the host and port that it would be sent to:
else anyone who may create a provider could have any Secret of the namespace sent anywhere.
"""

import base64
import binascii
import re
import shlex
from typing import Any

from overspill.api.names import GROUP
from overspill.api.provider import DEFAULT_PORT, InferenceProvider

Object = dict[str, Any]
ANNOTATION_HOSTS = f"{GROUP}/provider-hosts"
# host or host:port; an IPv6 address in brackets, or bare when no port follows
_ENTRY = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+|[0-9a-f:.]+)(:([0-9]{1,5}))?", re.ASCII)


def read_secret(provider: InferenceProvider, secret: Object | None) -> tuple[str, str, str]:
    """Return a provider's API key, and the reason and message that say how it is.

    :param secret: the Secret as the API server gives it, None when there is none.
    """
    ref, namespace = provider.spec.secret_ref, provider.metadata.namespace
    if secret is None:
        return "", "SecretNotFound", f"create Secret {ref.name} in namespace {namespace}"
    hosts = (secret["metadata"].get("annotations") or {}).get(ANNOTATION_HOSTS, "")
    default = DEFAULT_PORT[provider.spec.url.partition(":")[0]]
    wanted = provider.spec.destinations
    named = {_destination(h, default) for h in hosts.split(",")}
    if not provider.spec.host or not named.issuperset(wanted):
        shown = ",".join(_shown(host, port, default) for host, port in wanted)
        command = (
            f"kubectl annotate secret -n {namespace} {ref.name} "
            f"{ANNOTATION_HOSTS}={shlex.quote(shown)} --overwrite"
        )
        return "", "SecretHostNotAllowed", f"the Secret does not name {shown}: {command}"
    encoded = (secret.get("data") or {}).get(ref.key)
    if encoded is None:
        return "", "SecretKeyMissing", f"Secret {ref.name} has no key {ref.key}"
    try:
        value = base64.b64decode(encoded, validate=True).decode("ascii").strip()
    except (binascii.Error, UnicodeDecodeError):
        value = ""
    if not value or not value.isprintable():
        return "", "SecretEmpty", f"key {ref.key} of Secret {ref.name} holds no API key"
    return value, "Ready", ""


def _shown(host: str, port: int, default: int) -> str:
    """Return an entry of the annotation."""
    bare = f"[{host}]" if ":" in host else host
    return bare if port == default else f"{bare}:{port}"


def _destination(entry: str, default: int) -> tuple[str, int]:
    """Host and port of an entry of the annotation, spelled as those of a provider are.

    :param default: the port when it names none.
    """
    found = _ENTRY.fullmatch(entry.strip().lower())
    if found is None:
        return "", 0
    host, _, port = found.groups()
    return host.removeprefix("[").removesuffix("]").removesuffix("."), int(port or default)
