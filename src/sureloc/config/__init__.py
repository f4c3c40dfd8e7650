"""Settings that users write: found, read, checked and turned into frozen models."""
