"""The shared store over Redis or Valkey, and the connections under it."""
