"""The commands of `python -m service`, one a module; the client's are in `service.client.command`."""
