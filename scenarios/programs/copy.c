/* Copying and filling: loops over bytes and words, structs, signed bytes, a counter that is added to atomically. */
#include "start.h"

struct record {
    u64 number;
    u32 words[6];
    u8 name[16];
    double weight[4];
    signed char grades[16];
};

struct record first = {
    0x0123456789abcdef,
    {1, 2, 3, 4, 5, 6},
    "a record",
    {0.5, -1.25, 3.0, 1e100},
    {-1, 2, -3, 4, -5, 6, -7, 8, -9, 10, -11, 12, -13, 14, -15, 16},
};
struct record second, third[2];
u64 words[32];
u8 bytes[64];
long sum;
u32 counter;

/* As a compiler calls them. */
void *memcpy(void *to, const void *from, u64 size) {
    u8 *t = to;
    const u8 *f = from;
    while (size--)
        *t++ = *f++;
    return to;
}

void *memset(void *at, int value, u64 size) {
    u8 *t = at;
    while (size--)
        *t++ = (u8)value;
    return at;
}

void main(void) {
    second = first;
    second.number = ~second.number;
    third[0] = second;
    third[1] = first;
    for (int n = 0; n < 32; n++)
        words[n] = 0x1111111111111111ul * (n & 15);
    for (int n = 0; n < 16; n++)
        words[16 + n] = words[n];
    memset(bytes, 0x5a, 48);
    memcpy(bytes + 8, first.name, 16);
    for (int n = 0; n < 16; n++)
        sum += third[1].grades[n];
    for (int n = 0; n < 5; n++)
        __atomic_fetch_add(&counter, 3, __ATOMIC_SEQ_CST);
}
