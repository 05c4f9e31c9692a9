"""What can be done with a trained generator's latents.

``latents`` (what an image is made of, its names and files), ``slerp`` (the way between two of them), ``interpolation``
with ``video``, ``mixing`` (style mixing through the skip-layer excitation), ``neighbors`` (the nearest training
images), ``inversion`` (the latent of a given image), ``metrics`` (distances between images), ``pictures``.
"""
