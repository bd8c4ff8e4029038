"""How much memory is free, before it is asked for."""

def available():
    """Return the bytes that this process may still take; None where the system does not say."""
    found = []
    try:
        with open('/proc/meminfo') as file:
            found += [1024 * int(line.split()[1]) for line in file
                      if line.startswith('MemAvailable:')]
    except OSError:
        pass
    try:  # a container's limit, of Linux's control groups
        with open('/sys/fs/cgroup/memory.stat') as file:  # what it keeps of files is given back
            kept = sum(int(line.split()[1]) for line in file
                       if line.startswith(('active_file ', 'inactive_file ')))
        found.append(read_number('/sys/fs/cgroup/memory.max')
                     - read_number('/sys/fs/cgroup/memory.current') + kept)
    except (OSError, ValueError):  # none, or 'max'
        pass
    return max(0, min(found)) if found else None


def read_number(path):
    with open(path) as file:
        return int(file.read())


def amount(n):
    """'3.0 GiB': a number of bytes for people."""
    unit = min(5, max(0, (n.bit_length() - 1) // 10))
    return f'{n / 1024 ** unit:.1f} {("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")[unit]}'
