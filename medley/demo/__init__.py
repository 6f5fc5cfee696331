"""A catalogue of drawn products to try the suite with: no downloads, no licences to read."""
