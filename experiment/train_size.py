"""The first images of a training set in one order, the same for every run and balanced.

``--train-size`` takes the first ones, ``--validate-on rest`` those that follow.
"""
import numpy as np

from experiment.errors import Invalid


def divide(train, size, rest=None):
    """Divide a training set into the images that ``--train-size`` chooses and the rest.

    What is known of the files stays that of all of them.

    Args:
        train: :class:`experiment.labeled_images.LabeledImages`.
        size (int): How many images to choose, from the number of classes, so that each has one.
        rest (int): How many of those that follow to give; all where it is None.

    Returns:
        Two :class:`LabeledImages`; the second may be empty.

    Raises:
        Invalid: If a number is not valid.
    """
    if not train.n_class <= size <= len(train):
        raise Invalid(f'--train-size: given {size}, valid: {train.n_class}, one image of each '
                      f'class, to {len(train)}, the size of the training set')
    left = len(train) - size
    if rest is not None and 0 < left < rest:
        raise Invalid(f'--validate-on: given rest:{rest}, valid: rest:1 to rest:{left}, as many as '
                      f'--train-size {size} leaves')
    order = balanced_order(train.labels)
    end = None if rest is None else size + rest
    return train.take(order[:size]), train.take(order[size:end])


def balanced_order(labels):
    """Return the indices of all labels in an order that depends on nothing but the labels.

    One index of each class follows another, drawn without replacement by a fixed seed.  However
    many are taken from the start, the classes have equally many, or one more or less, but for
    those that have run out; and more of them contain fewer.

    Args:
        labels: integers ``(N,)``.
    """
    random_state = np.random.RandomState(0)
    turn = np.empty(len(labels), int)  # of each index, within its class
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        turn[members] = random_state.permutation(len(members))
    return np.lexsort((labels, turn))  # by turn, then by class
