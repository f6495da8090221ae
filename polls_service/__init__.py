"""Questions, and what people vote."""
