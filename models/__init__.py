"""The built-in models: their files, their cards and the scripts that make them."""
