"""Configuration of a run: one YAML file, validated whole before anything heavy is imported."""
