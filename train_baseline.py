#!/usr/bin/env python3
"""Train a network without mixup: the control of train_manifoldmixup.py.

    python train_baseline.py                              CIFAR-10, 300 epochs, batch 256
    python train_baseline.py --dataset digits --epoch 8   minutes on a CPU, no download

The two scripts differ in the mixup alone.
"""
import experiment  # isort: skip  # before NumPy: BLAS reads once what engine/environment.py sets
from chainer import iterators, training

from mixup import LOSSES, ManifoldMixupClassifier
from model import ARCHITECTURES


def main():
    args = experiment.parse_args(__doc__, 'baseline', ARCHITECTURES)
    experiment.claim_directory(args)  # no other run writes there
    device = experiment.use_device(args)
    experiment.use_dtype(args, device)
    experiment.choose_engine(args, device)  # switched on below, once there is a model
    train, test = experiment.load_dataset(args)
    streams = experiment.RandomStreams(args.seed)

    # The network, and around it the loss
    streams.seed_global('weights')
    network = ARCHITECTURES[args.arch](train.n_class, args.stem)
    experiment.load_pretrained(args.pretrained, network)
    streams.seed_global('mixup')
    model = ManifoldMixupClassifier(
        network, mixup_hidden=False, criterion=LOSSES[args.loss])
    optimizer = experiment.setup_optimizer(model, args)

    # The iterators give indices, the converters turn them into batches of images and labels
    train_iter = iterators.SerialIterator(
        range(len(train)), args.batchsize,
        order_sampler=iterators.ShuffleOrderSampler(streams.order))
    test_iter = iterators.SerialIterator(
        range(len(test)), args.batchsize, repeat=False, shuffle=False)
    normalization = experiment.Normalization(args.normalize, train.images)
    train_converter = experiment.BatchConverter(
        train, normalization, experiment.AUGMENTATIONS[args.augment](), streams.augmentation)
    test_converter = experiment.BatchConverter(test, normalization)

    # Training, with an evaluation after each epoch
    updater = training.updaters.StandardUpdater(train_iter, optimizer, train_converter, device)
    evaluator = experiment.ExactEvaluator(test_iter, model, test_converter, device)
    # From here on engine/ computes Chainer's functions; --engine stock leaves them as they are
    experiment.use_engine(args, model, evaluator)
    trainer = training.Trainer(updater, (args.epoch, 'epoch'), out=args.out)
    trainer.extend(evaluator)
    experiment.extend(trainer, args, streams)
    experiment.start(trainer, args, streams, device)
    trainer.run(show_loop_exception_msg=False)  # one_line_errors shows it


if __name__ == '__main__':
    with experiment.one_line_errors():
        main()
