"""The gRPC side: the Open Inference Protocol's service on a port of its own."""
