"""The operator's part of the ledger is the unit tests'."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "unit/ledger"))
