"""gRPC: protos to domain and back; the only place that imports the stubs."""
