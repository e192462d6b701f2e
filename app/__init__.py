"""The Twinroot control plane."""
