"""Questions to a live network, with real protocols, from inside any of its namespaces."""
