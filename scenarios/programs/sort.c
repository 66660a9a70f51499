/* A heap sort of 48 numbers, and how often it has exchanged two of them. */
#include "start.h"

#define COUNT 48

int numbers[COUNT] = {
    503, -87, 512, 61, 908, -170, 897, 275, 653, 426, -154, 509, 612, 677, 765, -703,
    44,  19,  -5,  88, 310, 299,  -1,  0,   77,  76,  75,   -74, 900, 901, -902, 903,
    1,   2,   3,   -4, 5,   6,    7,   -8,  409, 408, 407,  406, -32768, 32767, 12, 13,
};
u32 exchanges;

static void sink(u32 root, u32 end) {
    for (u32 child; (child = 2 * root + 1) < end; root = child) {
        if (child + 1 < end && numbers[child] < numbers[child + 1])
            child++;
        if (numbers[root] >= numbers[child])
            return;
        int held = numbers[root];
        numbers[root] = numbers[child];
        numbers[child] = held;
        exchanges++;
    }
}

void main(void) {
    for (u32 root = COUNT / 2; root-- > 0;)
        sink(root, COUNT);
    for (u32 end = COUNT - 1; end > 0; end--) {
        int held = numbers[end];
        numbers[end] = numbers[0];
        numbers[0] = held;
        exchanges++;
        sink(0, end);
    }
}
