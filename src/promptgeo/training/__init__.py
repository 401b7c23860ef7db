"""From a config to run folders."""
