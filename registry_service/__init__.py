"""Who is there: every instance of every service, and for how long it is believed."""
