"""Results out: JSON, CSV, figure."""
