"""Benchmarks: each compares with the bare engine underneath, in one run, and prints a line a figure."""
