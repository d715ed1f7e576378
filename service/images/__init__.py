"""Encoded images to pixels: what comes in is not trusted."""
