"""The gateway under the rights that it has in a cluster, with the servers of its unit tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "unit" / "gateway"))
