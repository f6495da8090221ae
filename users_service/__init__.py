"""Who is who, and who follows whom."""
