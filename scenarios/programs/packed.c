/* A list of packed records, nothing in it aligned: sums, and a copy of each with its bytes turned round. */
#include "start.h"

#define COUNT 9

struct __attribute__((packed)) record {
    u8 kind;
    u64 amount;
    u32 date;
    short change;
};

struct record list[COUNT] = {
    {1, 1000000000000, 20200101, -1}, {2, 2000000000000, 20200102, -2}, {1, 3000000000000, 20200103, -3},
    {2, 4000000000000, 20200104, 4},  {1, 5000000000000, 20200105, 5},  {2, 6000000000000, 20200106, 6},
    {1, 7000000000000, 20200107, -7}, {2, 8000000000000, 20200108, -8}, {1, 9000000000000, 20200109, 9},
};
struct record turned[COUNT];
u64 amounts[3];
long changes;

void main(void) {
    for (int n = 0; n < COUNT; n++) {
        struct record held = list[n];
        amounts[held.kind] += held.amount;
        changes += held.change;
        held.amount = __builtin_bswap64(held.amount);
        held.date = __builtin_bswap32(held.date);
        turned[COUNT - 1 - n] = held;
    }
}
