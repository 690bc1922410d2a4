"""PyTorch as a peer: its own ways to run the same weights on a CPU."""
