"""What every Antiphon process needs around its work: configuration, logs, the admin port, readiness, signals."""
