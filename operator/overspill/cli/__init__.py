"""The `overspill` command, also `kubectl overspill`.

Limits: it talks to the cluster with the caller's own kubeconfig and rights, never with more.

Exit status: 0 done · 1 something is not ready, or a request was not answered · 2 the command line
is wrong · 3 the cluster cannot be reached or refuses.
"""
