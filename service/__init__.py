"""The running service: images in over HTTP, predictions out. Never imports torch."""

__version__ = "0.1.0"
"""Of the whole product; pyproject.toml, the APIs and the bill of materials take it from here."""
