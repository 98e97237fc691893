"""What the methods cost and do on the NVIDIA GPU of this machine."""
