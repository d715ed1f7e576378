"""What the command lines of the service, its client and the export share; imports nothing heavy."""
