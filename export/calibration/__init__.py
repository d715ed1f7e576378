"""How sure a model may say that it is, and what looks like none of its classes."""
