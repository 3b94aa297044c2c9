"""What a serving catalog does besides answering: waiting calls, background upkeep, and what is measured."""
