"""The straight path of a job, and what saves it when something fails."""
