// float16 on the host: the type of CUDA's header of this name, and its two conversions.
#pragma once
#include <cstdint>
#include <cstring>

struct __half {
    uint16_t bits;
};

inline float __half2float(__half half) {
    bool finite = (half.bits & 0x7c00) != 0x7c00;
    uint32_t bits = (half.bits & 0x7fffu) << 13;
    if (!finite)
        bits |= 0x7f800000;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    if (finite)
        value *= 0x1p112f;  // the exponents differ by that
    return half.bits & 0x8000 ? -value : value;
}

inline __half __float2half_rn(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    uint16_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return {uint16_t(sign | 0x7e00)};
    if (bits >= 0x477ff000)  // 65520
        return {uint16_t(sign | 0x7c00)};
    if (bits < 0x38800000) {  // below 2 ** -14: as many units of 2 ** -24, those of 0.5, as it has
        std::memcpy(&value, &bits, sizeof value);
        value += 0.5f;
        std::memcpy(&bits, &value, sizeof bits);
        return {uint16_t(sign | (bits - 0x3f000000))};
    }
    bits += 0xc8000fff + (bits >> 13 & 1);  // other exponent; to even
    return {uint16_t(sign | bits >> 13)};
}
