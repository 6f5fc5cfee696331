"""What the scripts beside this package share: corpora, captions, the network, its training and its measures."""
