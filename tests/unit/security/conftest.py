import sys
from pathlib import Path

# The gateway's own test world, and the reader of rights.
for shared in ("gateway", "chart", "runtimes"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / shared))
