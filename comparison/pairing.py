"""Which runs are compared with which: pairs of one seed, and the groups that they form."""
from comparison.errors import Invalid
from comparison.records import DATA, SCRIPTS
from comparison.runs import METHODS


def in_words(setting, option):
    """A setting's value of an option; of data, the number of images."""
    value = setting.get(option, 'not recorded')
    return f'{value["images"]} images' if option in DATA and option in setting else str(value)


def differences(run, other):
    """What counts and differs between two runs, the seed too: {option: how, in words}."""
    here, there = ({**each.setting, 'seed': each.seed} for each in (run, other))
    found = {}
    for option in sorted(here | there):
        first, second = (in_words(each, option) for each in (here, there))
        if here.get(option) != there.get(option) or first != second:
            found[option] = (f'{first} here, {second} there' if first != second
                             else f'both {first}, other pixels or labels')
    return found


def leave_out(runs, unread):
    """The runs that can be compared, and {directory: why} of the others.

    A partner is a run of another method with the same setting and seed.

    Raises Invalid where none can, and where a run has no partner though every run could be read.
    """
    kept = []
    left_out = unread | {run.directory: run.problem for run in runs if run.problem}
    for run in runs:
        if run.problem:
            continue
        others = [other for other in runs if other.method != run.method]
        nearest = min(others, default=None, key=lambda other: (
            len(differences(run, other)), other.problem))
        found = differences(run, nearest) if others else None
        if found == {}:
            if nearest.problem:
                left_out[run.directory] = f'its partner {nearest.directory} is left out'
            else:
                kept.append(run)
        elif unread:
            left_out[run.directory] = 'without a partner among the runs that can be read'
        elif not others:
            raise Invalid(f'only {run.method} runs were given ({run.directory} …): give runs of '
                          f'both {" and ".join(SCRIPTS.values())}')
        else:
            listed = ', '.join(f'{option} ({how})' for option, how in found.items())
            raise Invalid(f'{run.directory} ({run.name}, seed {run.seed}) has no {nearest.method} '
                          f'partner: the nearest, {nearest.directory}, differs in {listed}; train '
                          'a partner with the same options and data, or leave this run out')
    if not kept:
        raise Invalid('nothing is left to compare; left out: ' + '; '.join(
            f'{directory}, {why}' for directory, why in left_out.items()))
    return kept, left_out


def group_runs(runs):
    """Sort runs into groups, each {name: [a run for each seed]} in the order of METHODS.

    Raises Invalid where a setting has the same seed twice.
    """
    groups = {}
    for run in sorted(runs, key=lambda run: (
            METHODS.index(run.method), run.name, run.seed)):
        group = groups.setdefault(str(sorted(run.setting.items())), {})
        rows = group.setdefault(run.name, [])
        if rows and rows[-1].seed == run.seed:
            raise Invalid(f'{rows[-1].directory} and {run.directory} have the same setting, '
                          f'{run.name}, and the same seed, {run.seed}: leave one of them out')
        rows.append(run)
    return list(groups.values())
