"""What every service stands on: seven rooms on five floors (docs/architecture.md). It knows no service."""

import sys

# redis-py loads OpenTelemetry's metrics where they are installed, megabytes that nothing here uses.
sys.modules.setdefault("opentelemetry.sdk.metrics", None)  # type: ignore[arg-type]  # that refuses the import
