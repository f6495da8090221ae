"""What a serving process is made of."""
