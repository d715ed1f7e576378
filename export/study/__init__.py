"""Experiments that measure why residual networks train: docs/residual-learning.md."""
