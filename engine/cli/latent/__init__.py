"""``fastgan-engine interpolate | mix | neighbors | invert``: a module a command; the library is ``engine/latent``."""
