"""What runs, commands and hooks say: masked, put in order, sent to the catalog as events."""
