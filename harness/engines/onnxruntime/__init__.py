"""ONNX Runtime as a peer: the same weights as a graph of its own operators."""
