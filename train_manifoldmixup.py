#!/usr/bin/env python3
"""Train a network with Manifold Mixup.

    python train_manifoldmixup.py                              CIFAR-10, 300 epochs, batch 256
    python train_manifoldmixup.py --layer-mix 0                input mixup
    python train_manifoldmixup.py --dataset digits --epoch 8   minutes on a CPU, no download

train_baseline.py is the same without the mixup; compare.py compares the runs of both.
"""
import experiment
from chainer import iterators, training

from mixup import ManifoldMixupClassifier
from model import ARCHITECTURES


def main():
    args = experiment.parse_args(__doc__, 'manifoldmixup', ARCHITECTURES)
    device = experiment.use_device(args)
    train, test = experiment.load_dataset(args.dataset, args.data_archive, args.size)
    streams = experiment.RandomStreams(args.seed)

    # The network, and around it the loss
    streams.seed_global('weights')
    network = ARCHITECTURES[args.arch](train.n_class, args.stem)
    experiment.load_pretrained(args.pretrained, network)
    streams.seed_global('mixup')
    model = ManifoldMixupClassifier(
        network, mixup_hidden=True, mixup_alpha=args.mixup_alpha, layer_mix=args.layer_mix)
    optimizer = experiment.setup_optimizer(model, args)

    # The iterators give indices, the converters make batches of images and labels of them
    train_iter = iterators.SerialIterator(
        range(len(train)), args.batchsize,
        order_sampler=iterators.ShuffleOrderSampler(streams.order))
    test_iter = iterators.SerialIterator(
        range(len(test)), args.batchsize, repeat=False, shuffle=False)
    normalization = experiment.Normalization(args.normalize, train.images)
    augmentation = experiment.AUGMENTATIONS[args.augment]()
    train_converter = experiment.BatchConverter(
        train, normalization, augmentation, streams.augmentation)
    test_converter = experiment.BatchConverter(test, normalization)

    # Training, with an evaluation after each epoch
    updater = training.updaters.StandardUpdater(
        train_iter, optimizer, converter=train_converter, device=device)
    trainer = training.Trainer(updater, (args.epoch, 'epoch'), out=args.out)
    trainer.extend(
        experiment.ExactEvaluator(test_iter, model, converter=test_converter, device=device))
    experiment.extend(trainer, args, streams)
    experiment.start(trainer, args, streams, device)
    trainer.run()


if __name__ == '__main__':
    with experiment.one_line_errors():
        main()
