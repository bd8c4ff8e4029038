"""What --recipe decides where the option itself is not given."""

RECIPES = {
    # The blog post's run
    'blog': {
        'arch': 'resnet50', 'stem': 'imagenet', 'mixup_alpha': 0.2, 'layer_mix': None,
        'epoch': 300, 'batchsize': 256, 'optimizer': 'adam', 'weight_decay': 0.,
        'schedule': 'constant', 'warmup': 0., 'augment': 'blog'},
    # What is usual for CIFAR
    'standard': {
        'arch': 'resnet50', 'stem': 'cifar', 'mixup_alpha': 0.2, 'layer_mix': None,
        'epoch': 200, 'batchsize': 128, 'optimizer': 'sgd', 'weight_decay': 1e-4,
        'schedule': 'cosine', 'warmup': 5., 'augment': 'standard'},
    # The paper's values; the batch is that of its authors' code.  The code also decays BN's
    # parameters, which are left out here as ever.
    'paper': {
        'arch': 'preactresnet18', 'stem': 'cifar', 'mixup_alpha': 2., 'layer_mix': [0, 2, 3],
        'epoch': 1200, 'batchsize': 100, 'optimizer': 'momentum', 'weight_decay': 1e-4,
        'schedule': 'step-thirds', 'warmup': 0., 'augment': 'standard'},
    # One cycle (Smith and Topin 2017), with the rate, batch and weight decay of the 35 epochs from
    # which Page's "How to train your ResNet" (2018) sets out
    'fast': {
        'arch': 'preactresnet18', 'stem': 'cifar', 'mixup_alpha': 0.2, 'layer_mix': None,
        'epoch': 30, 'batchsize': 128, 'optimizer': 'sgd', 'weight_decay': 5e-4,
        'schedule': 'linear', 'warmup': 6., 'augment': 'standard'},
}

# Where a recipe decides otherwise for one network
VARIANTS = {
    ('paper', 'wrn28-10'): {'epoch': 400, 'schedule': 'step', 'layer_mix': [0, 2]},
}


def values(recipe, arch):
    """The values of a recipe for a network, ``{option: value}``; ``layer_mix`` None means all."""
    return RECIPES[recipe] | VARIANTS.get((recipe, arch), {})


def described(option):
    """The values of an option, as in ``'300 (blog), 200 (standard)'``."""
    by_value = {}
    for recipe, options in RECIPES.items():
        by_value.setdefault(text(options[option]), []).append(recipe)
    for (recipe, arch), options in VARIANTS.items():
        if option in options:
            by_value.setdefault(text(options[option]), []).append(f'{recipe} with {arch}')
    return ', '.join(f'{value} ({", ".join(names)})' for value, names in by_value.items())


def text(value):
    """A value as it is given on the command line; None, for layers, is all."""
    if isinstance(value, list):
        return ','.join(map(str, value))
    return 'all' if value is None else str(value)
