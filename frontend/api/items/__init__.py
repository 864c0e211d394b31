"""Items on the wire, in and out: what responses and conversations have in common. No routes of its own."""
