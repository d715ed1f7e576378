"""Prometheus metrics, right across all workers."""

from service.metrics.definitions import STAGES as STAGES
from service.metrics.recorder import CONTENT_TYPE as CONTENT_TYPE
from service.metrics.recorder import Metrics as Metrics
