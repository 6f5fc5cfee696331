"""Other engines, each asked by the same driver in an environment of its own."""
