"""S3 access shared by several services: the only part of `common` that imports the driver."""
