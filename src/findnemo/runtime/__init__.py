"""The surroundings in which findnemo computes:

PyTorch's modes, arithmetic and threads, memory that runs out, notices, the libraries' own output.

May be imported: the modules here. May import: errors. It lies under `scores`, which know of no
model, and so it is no part of `models`.
"""
