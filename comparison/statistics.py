"""Means, standard deviations and paired differences."""
import numpy as np
import scipy.stats


def spread(values):
    """Mean and sample standard deviation (None for a single value), in the values' unit."""
    return {'mean': float(np.mean(values)),
            'std': float(np.std(values, ddof=1)) if len(values) > 1 else None}


def paired_difference(baseline, mixup):
    """Mixup − baseline: mean, std and Student's 95 % interval over pairs, in the values' unit.

    A single pair has no interval (None): it tells nothing about the next pair.
    """
    result = {**spread(np.subtract(mixup, baseline)), 'interval_95': None}
    if (pairs := len(mixup)) > 1:
        reach = float(scipy.stats.t.ppf(0.975, pairs - 1)) * result['std'] / pairs ** 0.5
        result['interval_95'] = [result['mean'] - reach, result['mean'] + reach]
    return result
