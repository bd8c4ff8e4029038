"""The comparison as text: a heading, a table and sentences for each group."""
from comparison.errors import plain
from comparison.pairing import in_words
from comparison.records import DATA

NOTES = """\
Accuracy, error and difference are those of the last epoch; mean ± standard deviation over seeds.
The difference is mixup − baseline in percentage points, paired by seed; its 95 % interval is
Student's t with one degree of freedom fewer than pairs, for each row by itself.
best*: best epoch, chosen on {images}; it flatters every row, so no verdict rests on it."""
# By --validate-on; elsewhere it is a directory.
VALIDATED_ON = {'test': 'the test data', 'rest': 'held-out training images'}


def title(setting, settings, longest=None):
    """The heading of a group, and its differences from the others: 'dataset cifar10, arch …'.

    Of values that have more than `longest` characters the end is shown.
    """
    parts = []
    for option in {option: None for each in settings for option in each}:  # all of them, in order
        # Other names tell other data apart.
        values = {str(each.get(option, 'not recorded')) for each in settings
                  if option not in DATA or each['dataset'] == setting['dataset']}
        if option in ('dataset', 'arch', 'epoch') or len(values) > 1:
            value = in_words(setting, option)
            if longest and len(value) > longest:
                value = '…' + value[1 - longest:]
            if option in DATA and option in setting:
                value += f' ({setting[option]["sha256"][:8]})'
            parts.append(f'{option} {value}')
    return plain(', '.join(parts))


def plus_minus(value):
    """'78.29 ± 0.21', or '78.29' for a single seed."""
    return f'{value["mean"]:.2f}' + ('' if value['std'] is None else f' ± {value["std"]:.2f}')


def in_points(difference, seeds):
    """'+2.00 [+1.10, +2.90]', and the number of pairs where it is not that of the seeds."""
    interval, pairs = difference['interval_95'], len(difference['per_seed'])
    shown = f'{difference["mean"]:+.2f} ' + (
        '[one pair: none]' if interval is None else '[{:+.2f}, {:+.2f}]'.format(*interval))
    return shown + f', {pairs} pairs' * (1 < pairs < seeds)


def aligned(cells):
    """Lines of cells as a markdown table, whose first line is the head."""
    widths = [max(map(len, column)) for column in zip(*cells)]
    cells.insert(1, ['-' * width for width in widths])
    return '\n'.join('| ' + ' | '.join(map(str.ljust, line, widths)) + ' |' for line in cells)


def table(rows):
    """A line for each row of a group."""
    cells = [('method', 'seeds', 'accuracy %', 'error %', 'difference [95 % interval]',
              'best* accuracy %', 'best* error %', 's/epoch')]
    for row in rows:
        seeds, difference = len(row['runs']), row.get('difference')
        cells.append((row['name'], str(seeds), plus_minus(row['accuracy_last_epoch']),
                      plus_minus(row['error_last_epoch']),
                      in_points(difference, seeds) if difference else '–',
                      plus_minus(row['accuracy_best_epoch']),
                      plus_minus(row['error_best_epoch']),
                      f'{row["seconds_per_epoch"]["mean"]:.1f}'))
    return aligned(cells)


def table_between_mixups(pairs):
    """A line for each Manifold Mixup and input mixup of a group that have seeds in common."""
    return aligned([('Manifold Mixup', 'input mixup', 'pairs',
                     'Manifold Mixup − input mixup [95 % interval]'), *(
        (detail(pair['manifold_mixup']), detail(pair['input_mixup']),
         str(pairs := len(pair['difference']['per_seed'])), in_points(pair['difference'], pairs))
        for pair in pairs)])


def detail(name):
    """What stands in the brackets of a mixup's name."""
    return name[name.index('(') + 1:-1]


def notes(settings):
    """How the table is to be read."""
    images = dict.fromkeys(
        VALIDATED_ON.get((on := setting['validate_on']).split(':')[0],
                         f'the images of {plain(on)}')
        for setting in settings)
    return NOTES.format(images=', or '.join(images))


def report(summaries, left_out):
    """The whole comparison as markdown."""
    settings = [summary['setting'] for summary in summaries]
    parts = ['# Comparison']
    for summary in summaries:
        parts += [f'## {title(summary["setting"], settings)}', table(summary['rows'])]
        if summary['between_mixups']:
            parts.append(table_between_mixups(summary['between_mixups']))
        parts += [each['verdict'] for each in summary['rows'] + summary['between_mixups']
                  if 'verdict' in each]
        parts += [plain(f'Caution: {sentence}') for sentence in summary['cautions']]
    parts += [plain(f'Left out: {directory}, {why}') for directory, why in left_out.items()]
    return '\n\n'.join(parts + [notes(settings)]) + '\n'
