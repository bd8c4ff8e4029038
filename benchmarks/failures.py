"""A plugin for pytest that writes each failure to a file at once: it is there if the run is killed.

    python -m pytest -p benchmarks.failures --failures FILE
"""


def pytest_addoption(parser):
    parser.addoption('--failures', metavar='FILE', help='gets the traceback of each failed test')


def pytest_configure(config):
    path = config.getoption('--failures')
    if path and not hasattr(config, 'workerinput'):  # xdist's workers report to the one that has it
        config.pluginmanager.register(Failures(path))


class Failures:

    def __init__(self, path):
        self.path = path

    def pytest_runtest_logreport(self, report):
        if report.failed:
            with open(self.path, 'a') as file:
                file.write(f'{report.nodeid}, {report.when}\n{report.longreprtext}\n\n')
