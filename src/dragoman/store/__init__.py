"""What is remembered: the seam between the program and its memory."""
