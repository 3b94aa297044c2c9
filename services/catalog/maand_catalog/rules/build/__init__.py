"""What a build makes of a workspace: placement, resources, ports, waves, allocations, certificates, generated KV entries."""
