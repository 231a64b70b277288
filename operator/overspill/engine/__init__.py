"""What runs inside an engine image: find the model, translate the options, start, drain.

`overspill-engine serve` supervises the engine's server, which runs in a child process:

* `options`      environment variables → a frozen `Options`
* `base`         what this program asks of an engine
* `llamacpp`     options → llama.cpp's settings (`params`: settings → its parameter object;
                 `server`: the child that serves with them)
* `vllm`         options → vLLM's command line
* `fit`          does the model fit, and what would make it (`gguf`, `safetensors`: its shape;
                 `llamacpp_memory`, `vllm_memory`: what an engine needs for it)
* `model`        path → the one model of the format that the engine reads
* `supervisor`   start the child, watch it, stop it
* `load`         what the engine computes now, from its metrics
* `drain`        after SIGTERM: wait until no request is left, for a bounded time
* `sidecar`      `overspill-engine drain`, for engines in images that are not ours
* `termination`  leave "Reason: text" where Kubernetes and a person look

The child exists because engines load a model inside calls during which Python runs no signal
handler: only another process can answer SIGTERM at once, or tell of a crash.
"""
