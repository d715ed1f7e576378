"""Other arithmetics of a model (int8, fp16, bf16), and the gate that each must pass."""
