"""One folder a mixer: spec.py (torch-free), reference.py (PyTorch), engine.py (Numba)."""
