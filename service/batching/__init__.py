"""What is let in, which batches are formed of it, and which slot computes them."""
