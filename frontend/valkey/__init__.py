"""Valkey as an adapter: hot state that the service can lose."""
