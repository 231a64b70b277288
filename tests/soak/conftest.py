"""The soak builds on the gateway's own test world."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit/gateway"))
