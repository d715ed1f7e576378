"""Turns trained PyTorch ResNets into verified ONNX models in the model store."""
