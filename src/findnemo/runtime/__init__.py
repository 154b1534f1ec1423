"""The surroundings of computations: PyTorch's modes, arithmetic and threads, lack of memory,
notices, the libraries' own output.

May be imported: the modules here. May import: errors. It lies under `scores`, which do not know
models, and so is no part of `models`.
"""
