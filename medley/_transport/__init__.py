"""How the SDK speaks to the gateway."""
