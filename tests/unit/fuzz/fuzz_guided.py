"""Coverage-guided fuzzing: libFuzzer drives the targets of fuzz_targets.py (`make fuzz-guided`).

An input that reaches code of ours as none before it is kept in build/fuzz/corpus, and mutated on in
this run and in the next. One that raises, hangs or takes too much memory is written to
build/fuzz/crashes; `fuzz_guided.py TARGET FILE` runs that alone.

The targets get libFuzzer's bytes as they are. Hypothesis' ``fuzz_one_input`` would read them as
the choices of a strategy: a few edits of a seed at most, and files that say nothing.
https://llvm.org/docs/LibFuzzer.html#options
"""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import atheris

# What is imported in here tells libFuzzer which branches it takes, and what it compares.
with atheris.instrument_imports(include=["overspill"]), contextlib.redirect_stderr(io.StringIO()):
    from fuzz_targets import SEEDS

from fuzz_mutations import rewritten

BUILD = Path("build/fuzz")
SECONDS = os.environ.get("OVERSPILL_FUZZ_SECONDS", "120")  # of each target
BOUNDS = ["-rss_limit_mb=1024", "-timeout=60", "-max_len=8192", f"-max_total_time={SECONDS}"]
SHOWN = ["-reduce_inputs=0", "-print_final_stats=1"]
TARGETS: dict[str, Callable[[bytes], None]] = {target.__name__: target for target in SEEDS}


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Return the next input: half of them by libFuzzer's own means."""
    rng = Random(seed)
    if rng.random() < 0.5:
        return atheris.Mutate(data, longest)
    return rewritten(data, rng)[:longest]


def folders(name: str) -> list[str]:
    """Return where the inputs of a target are: what was found, and what it is begun with."""
    found, seeds, crashes = (BUILD / kind / name for kind in ("corpus", "seeds", "crashes"))
    for folder in (found, seeds, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[TARGETS[name]]):
        (seeds / str(number)).write_bytes(seed)
    return [f"-artifact_prefix={crashes}/", str(found), str(seeds)]


def drive(name: str, files: list[str]) -> None:
    """Fuzz one target, or run it on files; the process ends with it."""
    options = files or [*BOUNDS, *SHOWN, *folders(name)]
    atheris.Setup([sys.argv[0], *options], TARGETS[name], custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    """Fuzz all targets, each in a process of its own; return 0 when nothing was found."""
    broken = []
    for name in TARGETS:
        print(f"\n=== {name}: {SECONDS} s", flush=True)
        if subprocess.run([sys.executable, __file__, name]).returncode:
            broken.append(name)
    print(f"\nfound something: {', '.join(broken)}" if broken else "\nnothing was found")
    return 1 if broken else 0


if __name__ == "__main__":
    if sys.argv[1:]:
        drive(sys.argv[1], sys.argv[2:])
    sys.exit(main())
