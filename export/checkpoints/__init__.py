"""Trained weights from any origin, as a network's own; read as data, never executed."""
