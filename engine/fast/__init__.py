"""The standard networks run with fused operations.

Each function here walks the modules of ``fastgan_engine.networks``, whose parameters and buffers it shares, and calls
the operations of ``fastgan_engine.kernels`` in place of the modules' own forwards. The result is that of the modules,
to the rounding of the compute precision.
"""
