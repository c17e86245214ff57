"""HTTP/1.1: framing, headers and responses are pure; downstream, exchange and upstream carry them out."""
