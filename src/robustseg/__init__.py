"""How far noise and attacks break a semantic segmentation network: measure, train, watch."""

__version__ = "0.1.0"
