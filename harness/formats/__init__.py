"""One file a format: how a weight matrix is stored on disk, laid out in memory and multiplied."""
