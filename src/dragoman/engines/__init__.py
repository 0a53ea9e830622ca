"""The services of the reference node."""
