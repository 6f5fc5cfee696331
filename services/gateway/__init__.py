"""The gateway service: the public API over the other three."""
