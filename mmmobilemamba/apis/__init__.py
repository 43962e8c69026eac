"""What the tools share: configs, options, inference, environment."""
