"""HTTP/2, in and out: header compression, frames, connections and streams, all our own (RFC 9113, RFC 7541)."""
