"""What users bring and take away."""
