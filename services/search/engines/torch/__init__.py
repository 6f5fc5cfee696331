"""Exact search on a device of PyTorch: start reading at `vector_index`."""
