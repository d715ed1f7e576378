"""How fast the service is, measured: each module is a program, `python -m benchmarks.NAME --help`."""
