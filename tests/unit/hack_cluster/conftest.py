"""The cluster's tool is a program with its own folder of modules, outside the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "hack/cluster"))
