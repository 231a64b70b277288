"""The child process: llama.cpp's HTTP server with the settings it is given.

Run as `python -m overspill.engine.server JSON` by the supervisor. It ends when its standard input
closes, so it never outlives the supervisor, and says why it cannot start in its last line.
"""

import json
import sys
from typing import Any

import xllamacpp

from overspill.engine.errors import EngineError, InvalidOptions, ModelLoadFailed
from overspill.engine.params import apply, apply_args


def main() -> int:
    """Serve until standard input closes; returns the exit status."""
    try:
        server = _start(json.loads(sys.argv[1]))
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    sys.stdin.read()
    del server
    return 0


def _start(given: dict[str, Any]) -> object:
    _check_devices(given["devices"])
    params = xllamacpp.CommonParams()
    apply(params, given["settings"])
    apply_args(params, given["args"])
    try:
        return xllamacpp.Server(params)  # returns when the model is loaded
    except RuntimeError:  # its text is always the same; the cause is in llama.cpp's own lines
        path = given["settings"]["model.path"]
        raise ModelLoadFailed(f"llama.cpp cannot load {path}") from None


def _check_devices(wanted: int) -> None:
    """Raise InvalidOptions when a model is to be split over more GPUs than llama.cpp sees."""
    kinds = [str(device["type"]) for device in xllamacpp.get_device_info()]
    found = sum("GPU" in kind for kind in kinds)
    if wanted > max(found, 1):
        raise InvalidOptions(
            f"parallelism asks for {wanted} GPUs and this build of llama.cpp sees {found}; "
            "use an image whose llama.cpp has a GPU back end, or runtime vllm"
        )


if __name__ == "__main__":
    sys.exit(main())
