"""The services of the reference node: each file one engine, and each may be missing without harm."""
