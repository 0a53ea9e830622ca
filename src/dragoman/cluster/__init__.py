"""What keeps the picture of the fleet true."""
