"""Medley's services; each is a package that serves one gRPC API and imports no other."""
