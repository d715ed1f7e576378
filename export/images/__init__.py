"""Images for verification, calibration and training."""
