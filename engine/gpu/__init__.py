"""The engine on an NVIDIA GPU; imported where one is used.

Convolutions by cuDNN 9, the other operations and the update of all parameters by kernels of our
own, and whole training steps and evaluations replayed as CUDA graphs.
"""
