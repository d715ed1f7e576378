"""The models that are served, and how they come and go while the service runs."""
