"""What TorchServe's archive is made of."""
