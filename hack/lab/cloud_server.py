"""The stand-in cloud: llama.cpp's own OpenAI server with an API key, none of our code around it.

Runs in the engine image, from a ConfigMap; reads API_KEY and MODEL from its environment.
"""

import os
import signal
from pathlib import Path

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = str(next(Path("/model").glob("*.gguf")))
params.model_alias = {os.environ["MODEL"]}
params.hostnames = ["0.0.0.0"]  # its pod's address; the Service in front is all that knows it
params.port = 8000
params.n_parallel = 8
params.n_ctx = 8 * 1024
params.endpoint_metrics = True
params.api_keys = [os.environ["API_KEY"]]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
os._exit(0)  # what is under way is cut, as it would be with any provider
