"""The gateway daemon: composes sensors, journal, alarms, alerts and pages."""
