"""Who may ask, and how much: keys, their holders, and what those may use."""
