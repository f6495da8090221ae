"""What a route is written with."""
