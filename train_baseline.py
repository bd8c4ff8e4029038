#!/usr/bin/env python3
"""Train a network without mixup: the control of train_manifoldmixup.py.

    python train_baseline.py                              CIFAR-10, 300 epochs, batch 256
    python train_baseline.py --dataset digits --epoch 8   minutes on a CPU, no download

The two scripts differ in the mixup alone.
"""
import recipe
from chainer import iterators, training

from mixup import ManifoldMixupClassifier
from model import ARCHITECTURES


def main():
    args = recipe.parse_args(__doc__, 'baseline', ARCHITECTURES)
    device = recipe.use_device(args)
    train, test = recipe.load_dataset(args.dataset, args.data_archive, args.size)
    streams = recipe.RandomStreams(args.seed)

    # The network, and around it the loss
    streams.seed_global('weights')
    network = ARCHITECTURES[args.arch](train.n_class, args.stem)
    recipe.load_pretrained(args.pretrained, network)
    streams.seed_global('mixup')
    model = ManifoldMixupClassifier(network, mixup_hidden=False)
    optimizer = recipe.setup_optimizer(model, args)

    # The iterators give indices, the converters make batches of images and labels of them
    train_iter = iterators.SerialIterator(
        range(len(train)), args.batchsize,
        order_sampler=iterators.ShuffleOrderSampler(streams.order))
    test_iter = iterators.SerialIterator(
        range(len(test)), args.batchsize, repeat=False, shuffle=False)
    normalization = recipe.Normalization(args.normalize, train.images)
    augmentation = recipe.AUGMENTATIONS[args.augment]()
    train_converter = recipe.BatchConverter(
        train, normalization, augmentation, streams.augmentation)
    test_converter = recipe.BatchConverter(test, normalization)

    # Training, with an evaluation after each epoch
    updater = training.updaters.StandardUpdater(
        train_iter, optimizer, converter=train_converter, device=device)
    trainer = training.Trainer(updater, (args.epoch, 'epoch'), out=args.out)
    trainer.extend(
        recipe.ExactEvaluator(test_iter, model, converter=test_converter, device=device))
    recipe.extend(trainer, args, streams)
    recipe.start(trainer, args, streams, device)
    trainer.run()


if __name__ == '__main__':
    with recipe.one_line_errors():
        main()
