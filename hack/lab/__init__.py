"""A place to run Overspill for real: what `make demo` and the stories of `e2e/` share.

kube.py drives kubectl and helm, platform.py installs the chart and the stand-in cloud,
load.py sends requests and keeps a line for each.
"""
