"""One folder an ffn: spec.py (torch-free), reference.py (PyTorch), engine.py (Numba)."""
