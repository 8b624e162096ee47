"""Learn from counts over sites and time which K of S sites to act on."""

__version__ = "0.1.0"
