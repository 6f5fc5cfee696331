"""Other engines, each queried by the same driver in its own environment."""
