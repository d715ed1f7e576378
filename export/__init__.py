"""Turns trained PyTorch ResNets into verified ONNX models in the model store."""

import os

# ONNX Runtime reports its use unless it is told not to before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
