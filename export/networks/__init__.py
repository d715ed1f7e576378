"""The networks: architectures as data, what they cost, and how they are built."""
