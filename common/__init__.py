"""What every service stands on: seven rooms on five floors (docs/architecture.md). It knows no service."""
