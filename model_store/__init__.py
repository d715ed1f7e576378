"""What a model is: the contract that exporting and serving share."""
