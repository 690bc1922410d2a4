"""The home of PyTorch: the stack as a model, and what makes its weights."""
