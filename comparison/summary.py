"""The results of a group of runs, in numbers and in sentences."""
from comparison.statistics import paired_difference, spread


def difference_between(runs, others):
    """The paired difference runs − others of their last accuracies, and a verdict on it.

    Paired by the seeds that both have; empty where there is none.
    """
    partners = {run.seed: run for run in others}
    pairs = [(run, partners[run.seed]) for run in runs if run.seed in partners]
    if not pairs:
        return {}
    last, partner_last = ([float(run.accuracy[-1]) for run in column] for column in zip(*pairs))
    difference = paired_difference(partner_last, last)
    difference['per_seed'] = {run.seed: value - partner for (run, _), value, partner
                              in zip(pairs, last, partner_last)}
    return {'difference': difference,
            'verdict': verdict(runs[0].name, others[0].name, difference)}


def verdict(name, other, difference):
    """One plain sentence about a paired difference in percentage points."""
    mean, interval = difference['mean'], difference['interval_95']
    pairs = len(difference['per_seed'])
    if interval is None:
        return (f'{name} against {other}: {mean:+.2f} points in one pair of runs: no interval, '
                'so no verdict beyond these two runs.')
    low, high = interval
    if low <= 0 <= high:
        return (f'{name} against {other}: {mean:+.2f} points, but no difference is shown: the '
                f'95 % interval, {low:+.2f} to {high:+.2f}, includes 0 ({pairs} seeds).')
    return (f'{name} is {"better" if mean > 0 else "worse"} than {other} by {abs(mean):.2f} '
            f'points (95 % interval {low:+.2f} to {high:+.2f}, {pairs} seeds).')


def cautions(runs):
    """Sentences on what the options do not show: runs that diverged, other code or machines."""
    found = [f'{run.directory} diverged: its last training loss is no finite number.'
             for run in runs if run.diverged]
    unrecorded = [run.directory for run in runs if not run.data]
    if any(run.data or run.given != runs[0].given for run in runs) and unrecorded:
        found.append('matched by the name of the dataset, as their data are not recorded: '
                     f'{", ".join(unrecorded)}.')
    starts = [start for run in runs for start in run.starts]
    for key in sorted(set().union(*starts)):
        values = sorted({str(start.get(key)) for start in starts})
        if len(values) > 1:
            found.append(f'the runs differ in {key}: {"; ".join(values)}.')
    return found


def summarize(group):
    """A group's results, ready for JSON: accuracy and error in %, difference in points, time."""
    rows = []
    for name, runs in group.items():
        last = [float(run.accuracy[-1]) for run in runs]
        best = [float(run.accuracy.max()) for run in runs]
        values = {'accuracy_last_epoch': last,
                  'error_last_epoch': [100 - value for value in last],
                  'accuracy_best_epoch': best,
                  'error_best_epoch': [100 - value for value in best],
                  'seconds_per_epoch': [run.seconds for run in runs]}
        row = {'name': name, **{key: spread(value) for key, value in values.items()}}
        row['runs'] = [{'directory': run.directory, 'seed': run.seed,
                        **{key: value[index] for key, value in values.items()},
                        'best_epoch': int(run.accuracy.argmax()) + 1,
                        'diverged': run.diverged, 'starts': run.starts}
                       for index, run in enumerate(runs)]
        if name != 'baseline':
            row |= difference_between(runs, group.get('baseline', []))
        rows.append(row)
    runs = sum(group.values(), [])
    return {'setting': runs[0].setting, 'rows': rows, 'between_mixups': between_mixups(group),
            'cautions': cautions(runs)}


def between_mixups(group):
    """The differences of each Manifold Mixup to each input mixup that has a seed in common."""
    manifold, inputs = ([name for name, runs in group.items() if runs[0].method == method]
                        for method in ('Manifold Mixup', 'input mixup'))
    return [{'manifold_mixup': name, 'input_mixup': other, **found}
            for name in manifold for other in inputs
            if (found := difference_between(group[name], group[other]))]
