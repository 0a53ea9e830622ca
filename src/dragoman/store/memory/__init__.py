"""The store of the embedded default: everything in this process."""
