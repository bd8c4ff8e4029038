"""The engine on an NVIDIA GPU; imported only when one is used.

cuDNN 9 computes convolutions, and the project's own CUDA kernels compute the other operations and
the update of all parameters.  Whole training steps and evaluations are replayed as CUDA graphs.
"""
