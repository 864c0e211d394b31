"""Nobody gets more than their share: plans, the gate before the engine, and its queue."""
