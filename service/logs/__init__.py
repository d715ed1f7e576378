"""What is written of requests, and by whom."""
