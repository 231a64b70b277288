"""Names of objects, labels, variables and hosts, each with its pattern."""

from typing import Annotated

from pydantic import Field

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
# ASCII only, and nothing in which two URL parsers see two hosts (userinfo, backslashes, IDNA:
# write xn--…), or which a shell would take for syntax: the host is part of a command that is shown.
_HOST = r"([A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])"
PORT = (  # 1 to 65535
    r":([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
URL_PATTERN = rf"^https?://{_HOST}({PORT})?(/[-A-Za-z0-9._~%!$&'()*+,;=:/]*)?$"

Namespace = Annotated[str, Field(pattern=DNS_LABEL, max_length=63)]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY)]
LabelValue = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)
]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
