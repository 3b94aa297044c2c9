"""`maand demo`: the whole system at work on SSH servers inside this process; it needs Python packages, make and rsync."""
