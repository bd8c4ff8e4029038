// Keeps a GPU waiting: what is queued behind it is then done without pauses, however slow the host.
extern "C" __global__ void spin(int cycles) {
    long long start = clock64();
    while (clock64() - start < cycles)
        ;
}
