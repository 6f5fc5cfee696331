"""What runs models, and where they are read from."""
