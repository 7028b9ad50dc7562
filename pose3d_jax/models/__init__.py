"""Flax linen modules, nothing else."""
