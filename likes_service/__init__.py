"""Who likes which post, and which posts are liked most."""
