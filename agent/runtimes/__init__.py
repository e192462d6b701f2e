"""Container engines that an agent can read."""
