"""Measurements of spineimg itself: speed against peers, robustness against broken files."""
