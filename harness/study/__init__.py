"""A study's TOML of arms and claims -> trials, tables, figures and an answer."""
