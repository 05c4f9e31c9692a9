"""What can be done with a trained generator's latents.

``latents`` (what an image is made of, its names and files), ``rendering`` (their images), ``slerp`` (the way between
two), ``interpolation`` with ``video``, ``mixing`` (style mixing through skip-layer excitation), ``neighbors`` (the
nearest training images), ``inversion`` (the latent of a given image), ``metrics`` (distances between images),
``images`` (what is compared with), ``pictures``, ``defaults``.
"""
