"""Tests of the local cluster itself: `make test-cluster`, which ends with the cluster up."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hack/cluster"))
