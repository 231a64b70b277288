"""The benchmarks are programs: what they import stands beside them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "bench"))
