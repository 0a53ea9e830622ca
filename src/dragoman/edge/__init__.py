"""What touches the network."""
