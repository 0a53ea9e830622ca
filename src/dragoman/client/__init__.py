"""The SDK of programs that speak."""
