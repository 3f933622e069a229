"""Measurements, each beside a reference in the same run: `just bench relay`, `just bench transceiver`, `just bench setup`."""
