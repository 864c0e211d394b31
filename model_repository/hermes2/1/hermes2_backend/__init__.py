"""The Triton side of Hermes-2: requests in, vLLM in the middle, responses out. Knows no HTTP.

model.py (Triton's calls) -> backend.Backend -> engine.Engine (vLLM, or a scripted one for tests)
                                   |
                              sender.Sender: the one thread that touches Triton's response senders
"""
