"""Ports and values of the gateway."""
