"""Configuration: one YAML file becomes typed settings, or every mistake in it with file, line and column."""
