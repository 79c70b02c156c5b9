"""EgressServices: which node translates, and what every node does for that. Pure."""
