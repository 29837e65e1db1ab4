"""The outside world as arguments: clock, entropy, configuration, telemetry, membership."""
