"""The wire: bytes in, bytes out. Whoever wants to learn proxying reads here and never meets a formula."""
