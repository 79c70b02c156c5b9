"""What MetalLB makes of its resources: addresses, announcements, FRR's configuration. Pure."""
