"""What an engine computes now, from the gauges of its `/metrics` page.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

import http.client
import re
import urllib.error
import urllib.request
from dataclasses import dataclass

TIMEOUT = 5.0  # seconds; a long prompt's step delays the page
MAX_PAGE = 8 << 20  # bytes

# The engine is in this pod: a proxy that the pod's environment names leads elsewhere.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def gauge(page: str, name: str) -> float | None:
    """The sum of a gauge's series on a page, None when there is none."""
    line = re.compile(rf"^{re.escape(name)}(?:\{{.*\}})?[ \t]+(\S+)", re.MULTILINE)
    try:
        values = [float(value) for value in line.findall(page)]
    except ValueError:
        return None
    return sum(values) if values else None


@dataclass(frozen=True)
class Gauges:
    """Where an engine says how many requests it runs, and how many wait (None: it does not).

    `loading` is the HTTP status of the page while the model is being loaded, None when no status
    tells that. Any other status says nothing about requests.
    """

    url: str
    running: str
    waiting: str | None
    loading: int | None = None

    def active(self) -> int | None:
        """Running plus waiting requests now.

        0 while no model is loaded, None when the server is too busy or does not say.
        """
        try:
            with _direct.open(self.url, timeout=TIMEOUT) as page:
                return self.read(page.read(MAX_PAGE).decode(errors="replace"))
        except urllib.error.HTTPError as error:
            return 0 if error.code == self.loading else None
        except ConnectionRefusedError:
            return 0
        except (ValueError, http.client.HTTPException):  # no URL, or no HTTP
            return None
        except OSError as error:
            return 0 if isinstance(getattr(error, "reason", None), ConnectionRefusedError) else None

    def read(self, page: str) -> int | None:
        """Running plus waiting requests on a page, None when it does not say both."""
        names = [name for name in (self.running, self.waiting) if name]
        values = [gauge(page, name) for name in names]
        if any(value is None or value != value for value in values):
            return None
        return round(sum(value for value in values if value))
