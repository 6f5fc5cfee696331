"""S3, as far as more than one service speaks it: the only place in `common` that knows the driver."""
