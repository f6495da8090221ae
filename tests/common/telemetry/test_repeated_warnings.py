"""Warnings that would fill the log."""

import logging

import pytest

from common.telemetry.logging import REPEAT_SECONDS, RepeatedWarning


def test_a_warning_is_logged_again_after_a_minute_or_when_it_differs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    warn = RepeatedWarning(logging.getLogger(__name__), clock=lambda: now)
    for text in ("first", "first", "second"):
        warn(text)
    now = REPEAT_SECONDS
    for _ in range(2):
        warn("second")

    assert caplog.messages == ["first", "second", "second"]
