"""Start llama.cpp's own OpenAI server, as a user who has never heard of Overspill would."""

import argparse
import os
import signal
from pathlib import Path

import xllamacpp

parser = argparse.ArgumentParser()
parser.add_argument("--model", type=Path, required=True, help="a GGUF file, or a folder with one")
parser.add_argument("--alias", required=True)
parser.add_argument("--port", type=int, default=8000)
parser.add_argument("--parallel", type=int, default=2)
parser.add_argument("--context", type=int, default=1024, help="tokens of one sequence")
options = parser.parse_args()

params = xllamacpp.CommonParams()
folder = options.model.is_dir()
params.model.path = str(next(options.model.rglob("*.gguf")) if folder else options.model)
params.model_alias = {options.alias}
params.hostnames = ["0.0.0.0"]
params.port = options.port
params.n_parallel = options.parallel
params.n_ctx = options.context * options.parallel
params.endpoint_metrics = True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
os._exit(0)  # what is under way is cut: it cannot drain
