"""The running service: images in over HTTP, predictions out. Never imports torch."""
