"""FAISS: the exact scan, approximate indexes, and the GPU."""
