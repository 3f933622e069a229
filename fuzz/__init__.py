"""Coverage-guided fuzzing of everything that reads bytes from the network: `./just fuzz --seconds 60`."""
