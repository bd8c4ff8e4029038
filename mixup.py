"""Manifold Mixup (Verma et al., ICML 2019, https://arxiv.org/abs/1806.05236).

Each training step draws one layer of the network and one lam ~ Beta(alpha, alpha), blends the
hidden states of every example at that layer with those of a partner from the same batch, and asks
the network for both labels in the same proportion.  :func:`mixup_data` blends,
:class:`ManifoldMixupNetwork` does so after one of its stages, and :class:`ManifoldMixupClassifier`
draws what is random and computes the loss.
"""
import chainer
import chainer.functions as F
import numpy as np


def mixup_data(x, t, lam, index=None):
    """Blend a batch with a permutation of itself (section 2, equation 1 of the paper).

    Args:
        x (array or chainer.Variable): Images or hidden states, float, shape ``(N, ...)``.
        t (array or chainer.Variable): Their labels, int, shape ``(N,)``.
        lam (float, array or chainer.Variable): The share of each example that is its own, in
            [0, 1]: one for all, shape ``()``, or one for each, shape ``(N,)``.
        index (array of int): Partner of each example, a permutation of ``0 ... N-1``; shape
            ``(N,)``.  Drawn from NumPy's global generator where it is None.

    Returns:
        tuple: ``lam * x + (1 - lam) * x[index]`` as a Variable with the shape and dtype of ``x``,
        through which gradients flow to both partners, ``t`` and ``t[index]``.

    Raises:
        ValueError: If ``lam`` has another shape.
    """
    if index is None:
        index = np.random.permutation(len(x))
    index = chainer.backend.get_array_module(x).asarray(index)
    lam = as_weights(lam, x)
    mixed_x = lam * x + (1 - lam) * F.permutate(x, index)  # F.permutate: no scatter in backward
    return mixed_x, t, t[index]


def as_weights(lam, x):
    """A Variable that holds ``lam`` and multiplies the examples of ``x``; it needs no gradient.

    It has the dtype of ``x``, is on the same device, and has as many axes, of which all but the
    first have length 1.

    Raises:
        ValueError: If ``lam`` has another shape than ``()`` and ``(N,)``.
    """
    lam = chainer.backend.get_array_module(x).asarray(chainer.as_array(lam), x.dtype)
    if lam.shape not in ((), x.shape[:1]):
        raise ValueError(f'lam must have shape () or {x.shape[:1]}, not {lam.shape}')
    lam = lam.reshape(lam.shape + (1,) * (x.ndim - lam.ndim))
    return chainer.Variable(lam, requires_grad=False)


class ManifoldMixupNetwork(chainer.Chain):
    """Base of the networks that mix: a chain of stages, after each of which it can, and a head.

    Layers are numbered alike in all networks: 0 is the input, 1 comes after the stem, and one more
    after each group of blocks.  The paper mixes at the input and after the first two groups, thus
    at 0, 2 and 3.

    A network gives:

    * ``layers`` and ``stems``, on the class: the range of its layers, the stems that it can have.
    * ``stages``: a callable for each layer, in order.  The first is ``F.identity``; what the one
      with number k returns is mixed at layer k.
    * ``head(h)``: the output, made of the last hidden states; they are the output without one.
    * ``backbone``: the chain that ImageNet weights fill, or None where there are none.
    """

    backbone = None

    @property
    def stages(self):
        raise NotImplementedError

    def head(self, h):
        return h

    def forward(self, x, target=None, mixup_hidden=False, lam=None, layer_mix=None, index=None):
        """The output of the network, mixed on the way where that is asked for.

        Args:
            x (array or chainer.Variable): Images, float, shape ``(N, 3, H, W)``.
            target (array): Their labels, int, shape ``(N,)``; needed where they are mixed.
            mixup_hidden (bool): Whether to mix, with ``lam`` (needed then) and ``index`` as in
                :func:`mixup_data`.
            layer_mix (int, collection of int, or None): The layer that mixes.  One of a
                collection, or of all where it is None, is drawn from NumPy's global generator.

        Returns:
            The output ``y``; with ``mixup_hidden`` ``(y, t_a, t_b)``.

        Raises:
            ValueError: If there is no such layer, or if what mixing needs is missing.
        """
        if mixup_hidden and (target is None or lam is None):
            raise ValueError('mixup_hidden needs target and lam')
        layer_mix = self.draw_layer(layer_mix) if mixup_hidden else None

        h = x
        for layer, stage in enumerate(self.stages):
            h = stage(h)
            if layer == layer_mix:
                h, t_a, t_b = mixup_data(h, target, lam, index)
        y = self.head(h)

        return (y, t_a, t_b) if mixup_hidden else y

    def draw_layer(self, layer_mix):
        """One layer, an int, out of what :meth:`forward` takes as ``layer_mix``."""
        if layer_mix is None:
            layer_mix = self.layers
        eligible = list(layer_mix) if np.iterable(layer_mix) else [layer_mix]
        if not eligible or any(layer not in self.layers for layer in eligible):
            raise ValueError(
                f'layer_mix must be in {self.layers[0]}-{self.layers[-1]}, not {layer_mix}')
        return int(np.random.choice(eligible))


class ManifoldMixupClassifier(chainer.Chain):
    """Wraps a network so that calling it on a batch gives the Manifold Mixup loss.

    Under ``chainer.config.train`` the loss is that of a mixed batch, the mean of
    ``lam * criterion(y, t_a) + (1 - lam) * criterion(y, t_b)``; otherwise, and with
    ``mixup_hidden=False``, it is ``criterion(y, t)``.  Reports ``loss`` and ``accuracy``; on a
    mixed batch the accuracy is weighted like the loss: ``lam`` times that against ``t_a``,
    ``1 - lam`` against ``t_b``.

    Args:
        predictor (ManifoldMixupNetwork): The network, which gives logits.
        mixup_hidden (bool): False trains a plain baseline.
        mixup_alpha (float): Parameter of Beta(alpha, alpha), 1e-300 to 1e300, or 0, which means
            ``lam = 1``.
        layer_mix (int, collection of int, or None): The layer that mixes, the layers of which one
            is drawn for each batch, or all of them.  0 is the input, thus input mixup.
        lam_per (str): Whether one lam is drawn for each ``'batch'``, as in the paper, or for each
            ``'example'``.
        criterion (callable): The loss of logits and labels, called as
            :func:`F.softmax_cross_entropy` is: with ``reduce='no'`` it gives a value for each
            example, otherwise their mean.

    Raises:
        ValueError: If ``mixup_alpha`` or ``lam_per`` has another value.
    """

    def __init__(self, predictor, mixup_hidden=True, mixup_alpha=0.2, layer_mix=None,
                 lam_per='batch', criterion=F.softmax_cross_entropy):
        super().__init__()
        # Beyond, NumPy's Beta overflows: it draws NaN, or 0 alone.
        if not (mixup_alpha == 0 or 1e-300 <= mixup_alpha <= 1e300):
            raise ValueError(f'mixup_alpha must be 0, or 1e-300 to 1e300, not {mixup_alpha}')
        if lam_per not in ('batch', 'example'):
            raise ValueError(f"lam_per must be 'batch' or 'example', not {lam_per!r}")
        self.mixup_hidden = mixup_hidden
        self.mixup_alpha = mixup_alpha
        self.layer_mix = layer_mix
        self.lam_per = lam_per
        self.criterion = criterion
        with self.init_scope():
            self.predictor = predictor

    def forward(self, x, t, lam=None, layer_mix=None, index=None):
        """The loss of one batch, shape ``()``.

        Args:
            x (array): Images, float32, shape ``(N, 3, H, W)``.
            t (array): Labels, int32, shape ``(N,)``.
            lam, layer_mix, index: See :meth:`draw`, which draws what is None.
        """
        lam, layer, index = self.draw(len(x), lam, layer_mix, index)
        if layer is None:
            y = self.predictor(x)
            loss = self.criterion(y, t)
            accuracy = F.accuracy(y, t)
        else:
            y, t_a, t_b = self.predictor(
                x, t, mixup_hidden=True, lam=lam, layer_mix=layer, index=index)
            loss = mixed(self.losses, y, t_a, t_b, lam)
            accuracy = mixed(correct, y, t_a, t_b, lam)
        chainer.report({'loss': loss, 'accuracy': accuracy}, self)
        return loss

    def losses(self, y, t):
        """The loss of each example, shape ``(N,)``."""
        return self.criterion(y, t, reduce='no')

    def draw(self, n, lam=None, layer_mix=None, index=None):
        """What is random in one step, drawn from NumPy's global generator where it is None.

        Args:
            n (int): Size of the batch.
            lam (float or array): See :func:`mixup_data`.
            layer_mix (int, collection of int, or None): The classifier's own where it is None.
            index (array of int): See :func:`mixup_data`.

        Returns:
            tuple: lam, layer (int) and index; each is None where nothing is mixed.  What was given
            is returned as it is, so that a step may draw first and hand the result to the model.
        """
        if not (self.mixup_hidden and chainer.config.train):
            return None, None, None
        if lam is None:
            lam = self.draw_lam(n)
        layer = self.predictor.draw_layer(self.layer_mix if layer_mix is None else layer_mix)
        if index is None:
            index = np.random.permutation(n)
        return lam, layer, index

    def draw_lam(self, n):
        """lam ~ Beta(alpha, alpha), a float or an array of shape ``(n,)``; 1 if alpha is 0."""
        if self.mixup_alpha == 0:
            return 1.
        size = n if self.lam_per == 'example' else None
        return np.random.beta(self.mixup_alpha, self.mixup_alpha, size)


def mixed(criterion, y, t_a, t_b, lam):
    """The mean of a criterion of logits against both labels, weighted by lam and 1 - lam.

    Args:
        criterion (callable): Gives a value for each example, shape ``(N,)``, of logits and labels.
        y (chainer.Variable): Logits, shape ``(N, n_class)``.
        t_a, t_b (array or chainer.Variable): Labels, int, shape ``(N,)``.
        lam: See :func:`mixup_data`.
    """
    a, b = criterion(y, t_a), criterion(y, t_b)
    lam = as_weights(lam, a)
    return F.mean(lam * a + (1 - lam) * b)


def correct(y, t):
    """1 for each example whose label has the largest logit, otherwise 0; shape ``(N,)``."""
    return (y.array.argmax(axis=1) == chainer.as_array(t)).astype(y.dtype)


def softmax_binary_cross_entropy(y, t, reduce='mean'):
    """The binary cross-entropy of softmax and label, averaged over the classes.

    It is what the paper's authors train with.  As it is linear in the label, that of a mixed label
    is the mixture of those of both labels, which :func:`mixed` gives.

    Args:
        y (chainer.Variable): Logits, shape ``(N, n_class)``, of at least two classes.
        t (array or chainer.Variable): Labels, int, shape ``(N,)``.
        reduce (str): ``'mean'`` over the examples, or ``'no'``.

    Returns:
        chainer.Variable: The loss, shape ``()`` or ``(N,)``, of the dtype of ``y``.
    """
    xp = chainer.backend.get_array_module(y)
    dtype = y.dtype
    y = F.cast(y, np.result_type(dtype, np.float32))  # float16 is too coarse to add up in
    classes = xp.arange(y.shape[1])
    is_label = classes == chainer.as_array(t)[:, None]
    is_largest = classes == y.array.argmax(axis=1)[:, None]

    log_sum = F.expand_dims(F.logsumexp(y, axis=1), 1)
    log_p = y - log_sum
    # log(1 - p): near p = 1 from the other classes, as the difference would cancel.
    others = F.where(is_largest, xp.full_like(y.array, -np.inf), y)
    rest = F.where(is_largest, F.expand_dims(F.logsumexp(others, axis=1), 1) - log_sum,
                   F.log1p(-F.exp(others - log_sum)))
    losses = F.cast(-F.mean(F.where(is_label, log_p, rest), axis=1), dtype)
    return F.mean(losses) if reduce == 'mean' else losses


# By the names that --loss has
LOSSES = {'ce': F.softmax_cross_entropy, 'bce': softmax_binary_cross_entropy}
