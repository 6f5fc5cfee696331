"""Search measured: the service over gRPC beside raw FAISS, and beside other engines, in one run."""
