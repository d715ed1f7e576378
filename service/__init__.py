"""The running service: images in over HTTP, predictions out. Never imports torch."""

__version__ = "0.1.0"
