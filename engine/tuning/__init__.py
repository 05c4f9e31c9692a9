"""``profiles tune``: what is fastest on the machine at hand, measured, as a profile with its reasons."""
