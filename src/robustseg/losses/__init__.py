"""Losses per pixel, and how alike two images are."""
