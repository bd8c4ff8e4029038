"""Fonts that have the letters of a text."""
import logging
import re
import unicodedata

from matplotlib import font_manager, rcParams


def letters(text):
    """The characters of a text, each with the accents on it, which have to be of one font."""
    marks = ''.join(letter for letter in set(text) if unicodedata.category(letter)[0] == 'M')
    return re.findall(f'.[{marks}\u200d]*', text)


def can_show(family, wanted):
    """Those of the wanted letters that an installed family of fonts has; None: the default one."""
    try:
        path = font_manager.findfont(
            font_manager.FontProperties(family=[family] if family else None),
            fallback_to_default=False)
        has = set(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # a damaged file, or one that is there no more
        return set()
    return {letter for letter in wanted if has.issuperset(letter)}


def find_families(text):
    """The families of fonts that show a text between them, and the letters that none has.

    The default comes first; only where it lacks a letter are others opened.
    """
    # That a family lacks a weight is no news.
    logging.getLogger('matplotlib.font_manager').setLevel(logging.ERROR)
    families, missing = list(rcParams['font.family']), set(letters(text))
    missing -= can_show(None, missing)
    if missing:
        names = {font.name for font in font_manager.fontManager.ttflist}
        shown = {name: can_show(name, missing) for name in sorted(names)
                 if 'LastResort' not in name.replace(' ', '')}  # which shows boxes
        for name in sorted(shown, key=lambda name: len(shown[name]), reverse=True):
            if missing & shown[name]:
                families.append(name)
                missing -= shown[name]
    return families, missing
