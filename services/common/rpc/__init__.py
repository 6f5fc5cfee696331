"""gRPC: servers, clients, deadlines and statuses."""
