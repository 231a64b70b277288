"""What runs inside an engine image: find the model, translate the options, start, drain.

`overspill-engine serve` supervises llama.cpp's server, which runs in a child process:

* `options`      environment variables → a frozen `Options`
* `model`        path → the one GGUF file
* `llamacpp`     options → llama.cpp's own settings
* `server`       the child: settings → a listening llama.cpp server
* `supervisor`   start the child, watch it, stop it
* `drain`        after SIGTERM: wait until no request is left, for a bounded time
* `termination`  leave "Reason: text" where Kubernetes and a person look

The child exists because llama.cpp loads a model inside one call during which Python runs no
signal handler: only another process can answer SIGTERM at once, or tell of a crash.
"""
