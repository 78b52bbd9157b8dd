"""Vertebral Hounsfield units and their flag."""
