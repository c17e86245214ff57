"""The wire: bytes in, bytes out. To learn proxying, read here: you never meet a formula."""
