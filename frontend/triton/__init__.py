"""Triton as an adapter: the tensors of `hermes2`, and the engine port on top of them."""
