"""What people write, and what of it they get to read."""
