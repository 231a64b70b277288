"""`overspill try`: the whole idea on one machine, without a cluster, a GPU or a key.

What answers, decides and counts is real: llama.cpp with a small model, the gateway with its objects
in a folder, the ledger. Only the cloud is a stand-in, and says so: the same model once more, at the
list price of a model that one would spill to.
"""
