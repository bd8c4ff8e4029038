// Keeps a GPU busy, so that what is queued behind it runs without pauses, however slow the host.
extern "C" __global__ void spin(int cycles) {
    long long start = clock64();
    while (clock64() - start < cycles)
        ;
}
