"""Models run by Triton."""
