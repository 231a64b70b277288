import sys
from pathlib import Path

# The generator of specs.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))
