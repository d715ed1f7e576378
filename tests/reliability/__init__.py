"""What the service promises under load and faults: programs that print figures, and short runs of them as tests."""
