"""Every instance of every service, and how long its lease lasts."""
