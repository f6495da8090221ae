"""What is observed of a process: the request id, the trace, the log."""

import sys

# redis-py loads OpenTelemetry's metrics where they are installed, megabytes that nothing here uses.
sys.modules.setdefault("opentelemetry.sdk.metrics", None)  # type: ignore[arg-type]  # that refuses the import
