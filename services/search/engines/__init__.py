"""The engines behind the ports: memory, FAISS, PyTorch and Milvus."""
