"""run.json and log of a run, checked as far as the comparison uses them."""
import json
import math
import re
import reprlib

from comparison.errors import Invalid

SCRIPTS = {'baseline': 'train_baseline.py', 'manifoldmixup': 'train_manifoldmixup.py'}
DATA = {'training data': 'train', 'test data': 'test'}  # they count as options do
# Options that older records lack, each with what was done before there was a choice.
DEFAULTS = {
    'lam_per': 'batch', 'loss': 'ce', 'train_size': None, 'validate_on': 'test', 'warmup': 0}


def is_number(value, kind=(int, float)):
    """Whether a value is a number, and so small that its square is one too."""
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < 1e100


def is_layers(value):
    return (isinstance(value, list) and value != []
            and all(is_number(layer, int) for layer in value))


def is_starts(value):
    return isinstance(value, list) and all(
        isinstance(start, dict) and {'commit', 'device', 'versions'} <= start.keys()
        and isinstance(start['versions'], dict) for start in value)


def is_data(value):
    return isinstance(value, dict) and all(
        isinstance(split := value.get(key), dict)
        and is_number(split.get('images'), int) and split['images'] > 0
        and isinstance(split.get('sha256'), str) and re.fullmatch('[0-9a-f]{64}', split['sha256'])
        for key in DATA.values())


def check(where, values, needed):
    """Raise Invalid for the first of `needed`, {key: (holds, what it has to be)}, that fails."""
    for key, (holds, what) in needed.items():
        if key not in values or not holds(values[key]):
            found = reprlib.repr(values[key]) if key in values else 'missing'
            raise Invalid(f'{where}: {key} is {found}, but {what} is needed: train the run again')


def finite(number):
    """A number of a JSON file; None where it is NaN or infinite."""
    return value if abs(value := float(number)) < math.inf else None


def read_json(path):
    try:
        return json.loads(path.read_text(encoding='utf-8'), parse_float=finite,
                          parse_constant=finite)
    except (ValueError, RecursionError, MemoryError) as error:
        raise Invalid(f'{path} cannot be read as JSON ({str(error) or "memory ran out"}): train '
                      'the run again') from None
    except OSError as error:
        raise Invalid(f'{path} cannot be read ({error.strerror}): see to its permissions, or '
                      'train the run again') from None


def read_record(path):
    """Read a `run.json`, checked as far as the comparison uses it."""
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get('options'), dict):
        raise Invalid(f'{path} is no record of a run, with its options: give directories written '
                      f'by {" and ".join(SCRIPTS.values())}')
    check(path, record, {
        'method': (lambda method: method in list(SCRIPTS), ' or '.join(SCRIPTS)),
        'starts': (is_starts, 'a list of commit, device and versions')})
    if 'data' in record:  # older records lack it
        check(path, record, {'data': (is_data, 'a record of images and sha256 for train and test')})
    options = record['options']
    for option, default in DEFAULTS.items():
        if options.get(option, default) == default:
            options[option] = default  # of 0 and 0.0 the same one
    check(path, options, {
        'dataset': (lambda name: isinstance(name, str), 'a name'),
        'seed': (lambda seed: is_number(seed, int), 'an integer'),
        'epoch': (lambda epoch: is_number(epoch, int) and epoch > 0, 'a positive integer'),
        'validate_on': (lambda on: isinstance(on, str), 'test, rest, rest:N or a directory')})
    if record['method'] == 'manifoldmixup':
        check(path, options, {
            'mixup_alpha': (is_number, 'a number'),
            'lam_per': (lambda per: per in ('batch', 'example'), 'batch or example'),
            'layer_mix': (is_layers, 'a list of integers')})
    return record


def read_log(path, epochs):
    """Read the `log` of a run of `epochs` epochs: its entries, and what keeps it from being used.

    An entry for each epoch and an empty string; or no entries and what is wrong, in words.
    """
    try:
        log = read_json(path) if path.exists() else []
        if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
            raise Invalid(f'{path} is not a list of entries, one an epoch: train the run again')
        for number, entry in enumerate(log, 1):
            check(f'{path}, entry {number}', entry, {
                'epoch': (lambda epoch: epoch == number <= epochs, f'each from 1 to {epochs} once'),
                'elapsed_time': (is_number, 'a number of seconds'),
                'validation/main/accuracy': (
                    lambda value: value is None or is_number(value) and 0 <= value <= 1,
                    'a number from 0 to 1')})
    except Invalid as error:
        return [], f'unusable: {error}'
    if len(log) < epochs:
        return [], f'unfinished: {len(log)} of {epochs} epochs; go on with --resume'
    if lost := [entry['epoch'] for entry in log if entry['validation/main/accuracy'] is None]:
        return [], f'diverged: its validation accuracy in epoch {lost[0]} is no finite number'
    return log, ''
