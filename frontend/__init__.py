"""The HTTP side of the service: the OpenAI API on port 11401, over gRPC to Triton."""
