"""Pure nouns and rules. Imports no web framework, no database, no gRPC, no Valkey, no FAISS."""
