"""What is delivered: from an address to a socket."""
