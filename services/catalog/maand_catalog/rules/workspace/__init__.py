"""What people write in a workspace, as frozen facts: manifests, workers, settings, files, and the problems found in them."""
