"""Neural networks: torch modules that know nothing of files, losses or tasks."""
