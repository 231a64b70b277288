"""A one-node Kubernetes cluster on this machine, from pinned Go modules and Debian packages.

Standard library only: it runs before any virtual environment exists. Linux, root, one cluster per
machine, whatever checkout it is started from. For tests and demos, not for data one wants to keep:
etcd does not sync to disk.
"""
