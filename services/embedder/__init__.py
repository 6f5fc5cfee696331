"""The embedder service: media and text in, vectors out."""
