"""The processes of the service: workers, how they begin and end, and what they may use of the machine."""
