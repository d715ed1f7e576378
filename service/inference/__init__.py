"""One model's work: open, computed in slots, and what is read of its outputs."""
