"""What cannot be compared, and text that fits into one line."""
import re
import unicodedata


class Invalid(ValueError):
    """Something given cannot be compared; the message says what it was and what to do."""


def plain(text):
    """Text in which '?' stands for line breaks, control characters and bytes that are no text."""
    return re.sub('[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]', '?',
                  unicodedata.normalize('NFC', str(text)))
