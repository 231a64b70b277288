import sys
from pathlib import Path

# The gateway's own test world.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
