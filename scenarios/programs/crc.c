/* CRC-32 over a text, by a table that is made first. */
#include "start.h"

u32 table[256];
u8 text[] = "The quick brown fox jumps over the lazy dog";
u32 crc;

void main(void) {
    for (u32 n = 0; n < 256; n++) {
        u32 value = n;
        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? value >> 1 ^ 0xedb88320 : value >> 1;
        table[n] = value;
    }
    u32 sum = ~0u;
    for (u32 n = 0; n < sizeof text - 1; n++)
        sum = sum >> 8 ^ table[(sum ^ text[n]) & 255];
    crc = ~sum;
}
