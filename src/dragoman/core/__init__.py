"""What is decided: pure functions and values, with no await, clock, log or I/O."""
