"""Depth and ego-motion from video: geometry, reprojection, alignment, stereo labels."""
