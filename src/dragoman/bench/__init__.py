"""What a job costs, measured."""
