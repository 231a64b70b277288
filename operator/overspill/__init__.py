"""Overspill: language models on your own Kubernetes GPUs, spilling to cloud APIs when full."""

__version__ = "0.1.0"
