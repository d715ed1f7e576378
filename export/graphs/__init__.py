"""ONNX graphs: the one that is served, and how files from elsewhere become it."""
