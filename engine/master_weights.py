"""Master weights: the float32 weights that are trained where a network computes in float16."""
import chainer
import numpy as np


def master_weights(parameter):
    """The float32 parameter that a float16 one is rounded from, made if there is none yet.

    Args:
        parameter (chainer.Parameter): Initialized, with an update rule.

    Returns:
        chainer.Parameter: The one that the update rule keeps (``use_fp32_update`` in Chainer); the
        given one itself if it is not in float16.
    """
    if parameter.dtype != np.float16:
        return parameter
    rule = parameter.update_rule
    if rule._fp32_param is None:
        rule._fp32_param = chainer.Parameter(
            parameter.array.astype(np.float32), name=parameter.name)
    return rule._fp32_param
