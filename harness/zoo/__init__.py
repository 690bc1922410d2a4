"""Sizes and public architectures, one TOML file each: dimensions with their source."""
