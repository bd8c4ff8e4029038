"""The results of a group of runs, in numbers and in sentences."""
from comparison.statistics import paired_difference, spread


def verdict(name, difference, pairs):
    """One plain sentence about a paired difference in percentage points."""
    mean, interval = difference['mean'], difference['interval_95']
    if interval is None:
        return (f'{name} against baseline: {mean:+.2f} points in one pair of runs: no interval, '
                'so no verdict beyond these two runs.')
    low, high = interval
    if low <= 0 <= high:
        return (f'{name} against baseline: {mean:+.2f} points, but no difference is shown: the '
                f'95 % interval, {low:+.2f} to {high:+.2f}, includes 0 ({pairs} seeds).')
    return (f'{name} is {"better" if mean > 0 else "worse"} than baseline by {abs(mean):.2f} '
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
    control = {run.seed: float(run.accuracy[-1]) for run in group['baseline']}
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
            partners = [control[run.seed] for run in runs]
            row['difference'] = paired_difference(partners, last)
            row['difference']['per_seed'] = {run.seed: value - partner for run, value, partner
                                             in zip(runs, last, partners)}
            row['verdict'] = verdict(name, row['difference'], len(runs))
        rows.append(row)
    return {'setting': group['baseline'][0].setting, 'rows': rows,
            'cautions': cautions(sum(group.values(), []))}
