"""Fused operations of the FastGAN step, one module each: ``from fastgan_engine.kernels.norm_glu import norm_glu``.

A module holds, in order, the formula, the plain-PyTorch reference, the Triton kernels, the autograd function and the
public function. Beside them: ``launch`` (how a kernel is started and recorded), ``dispatch`` (kernel or reference),
``arguments`` (checks) and ``traffic`` (bytes a launch moves). Nothing here imports the engine.
"""
