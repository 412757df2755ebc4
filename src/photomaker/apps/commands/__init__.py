"""The commands of `photomaker`, by subject; `photomaker.apps.cli` puts them together."""
