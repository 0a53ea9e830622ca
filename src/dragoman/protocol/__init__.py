"""What is said on the wire: bytes to messages and back, and what may be said when. No sockets here."""
