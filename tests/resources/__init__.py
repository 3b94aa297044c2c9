"""A machine that has no room: full disks, few descriptors, templates that want all memory (root; `make test-resources`)."""
