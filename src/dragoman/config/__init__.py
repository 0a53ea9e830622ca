"""One file and the environment become Settings."""
