"""fastgan-engine: trains the standard FastGAN fast on a consumer NVIDIA card.

Importing this package is cheap: torch is loaded on the first use of a name below.
"""
