"""What people and programs get to see: view-models are pure, drawing is apart."""
