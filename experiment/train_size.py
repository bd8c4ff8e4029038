"""The first images of a training set in one order, the same for every run and balanced."""
import numpy as np

from experiment.errors import Invalid


def divide(train, size):
    """Divide a training set into the images that ``--train-size`` chooses and the rest.

    What is known of the files stays that of all of them.

    Args:
        train: :class:`experiment.labeled_images.LabeledImages`.
        size (int): How many images to choose, from the number of classes, so that each has one.

    Returns:
        Two :class:`LabeledImages`; the second may be empty.

    Raises:
        Invalid: If the size is not valid.
    """
    if not train.n_class <= size <= len(train):
        raise Invalid(f'--train-size: given {size}, valid: {train.n_class}, one image of each '
                      f'class, to {len(train)}, the size of the training set')
    order = balanced_order(train.labels)
    return train.take(order[:size]), train.take(order[size:])


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
