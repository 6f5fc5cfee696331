"""Collections whose vectors lie in Milvus."""
