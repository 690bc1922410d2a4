"""One module or folder an engine: what executes a checkpoint."""
