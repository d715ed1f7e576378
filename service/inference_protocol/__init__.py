"""The Open Inference Protocol, version 2: what its HTTP and its gRPC form have in common.

https://github.com/kserve/open-inference-protocol, and of Triton's extensions the binary tensors and classification
(https://github.com/triton-inference-server/server/tree/main/docs/protocol).
"""
