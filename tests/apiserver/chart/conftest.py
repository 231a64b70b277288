import sys
from pathlib import Path

import pytest
from chart_world import Helm

# The rights matrix is shared with the tests of the plain manifests.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "unit/chart"))


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm; a run without it fails, it does not skip."""
    return Helm.find()
