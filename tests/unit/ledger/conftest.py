"""Tests of the ledger over HTTP use the gateway's world."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
