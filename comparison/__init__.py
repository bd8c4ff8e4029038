"""Runs with and without mixup, compared: what compare.py does, step by step.

    records     run.json and log of a run, checked
    runs        runs, found below directories and read from their records
    pairing     which runs are compared with which
    statistics  means, standard deviations, paired differences
    summary     the results of a group, in numbers and in sentences
    report      the comparison as text
    picture     the comparison as a picture
    fonts       fonts that have the letters of a text
    output      files that appear whole, and text on the terminal
    errors      what cannot be compared

Nothing but files is read, and nothing of Chainer imported.
"""
