"""The client: a command line (``python -m service client``) and a library.

    from service.client import Client

    with Client("http://127.0.0.1:3000") as client:
        for result in client.classify(["ship.jpg", "cat.jpg"]):
            print(result.error or result.predictions[0].label)

It imports nothing of the serving side, so it starts fast and needs no ONNX Runtime.
"""

from service.client.base import Options
from service.client.blocking import Client
from service.client.concurrent import AsyncClient
from service.client.errors import BadAnswer, ClientError, Refused, TimedOut, Unreachable
from service.client.results import Classification, Embedding, Explanation, Heatmap, Model, Prediction, Problem
from service.client.retry import Retry

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "Classification",
    "Client",
    "ClientError",
    "Embedding",
    "Explanation",
    "Heatmap",
    "Model",
    "Options",
    "Prediction",
    "Problem",
    "Refused",
    "Retry",
    "TimedOut",
    "Unreachable",
]
