"""What engines on devices share: the search, its proof, and the planning of memory."""
