"""The SDK of programs that translate."""
