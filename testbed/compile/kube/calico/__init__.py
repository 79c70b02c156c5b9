"""What Calico makes of its resources: address blocks, BGP sessions, BIRD's configuration, filters. Pure."""
