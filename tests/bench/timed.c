/*
 * What `kvmscen measure` is held against: the same guest, and a loop in C around KVM_RUN.
 *
 *   timed FILE COUNT STAMPS   builds the VM of the guest in FILE, goes round COUNT exits and prints what they took
 *
 * The guest stores to an address outside its slot and writes a port, for ever. With STAMPS 1, clock_gettime stands before and
 * after each ioctl(KVM_RUN); with 0 there is nothing but the ioctl and a look at the exit, and one clock_gettime for 100 exits. Prints the
 * median of an MMIO write and of an OUT in ns (0 without stamps), and the time of both together, the median over hundreds.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define TABLES_SIZE 0x8000

struct guest { /* measure.GUEST */
	uint64_t slot, size, entry, tables, mmio;
	uint32_t port, length;
	uint8_t code[64];
} __attribute__((packed));

static int kvm;

static int call(int fd, unsigned long request, void *argument, const char *name)
{
	int result = ioctl(fd, request, argument);

	if (result < 0)
		err(1, "%s", name);
	return result;
}

static void make_tables(uint64_t *tables, uint64_t at)
{
	static const uint64_t gdt[] = {0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF, 0x00AF9B000000FFFF};

	tables[0] = (at + 0x1000) | 0x63;
	for (uint64_t gib = 0; gib < 4; gib++) {
		tables[512 + gib] = (at + 0x2000 + 0x1000 * gib) | 0x63;
		for (uint64_t n = 0; n < 512; n++)
			tables[1024 + 512 * gib + n] = ((gib << 30) + (n << 21)) | 0xe3;
	}
	memcpy(tables + 512 * 6, gdt, sizeof(gdt));
}

static void *slot(int vm, int number, uint64_t gpa, uint64_t size)
{
	void *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct kvm_userspace_memory_region region = {number, 0, gpa, size, (uint64_t)at};

	if (at == MAP_FAILED)
		err(1, "mmap");
	call(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	return at;
}

static void boot(int vcpu, const struct guest *g)
{
	struct kvm_segment code = {0, 0xffffffff, 0x08, 11, 1, 0, 0, 1, 1, 1}, data = {0, 0xffffffff, 0x10, 3, 1, 0, 1, 1, 0, 1};
	struct kvm_regs regs = {.rip = g->entry, .rflags = 2};
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
	struct kvm_sregs sregs;

	cpuid->nent = 256;
	call(kvm, KVM_GET_SUPPORTED_CPUID, cpuid, "KVM_GET_SUPPORTED_CPUID");
	call(vcpu, KVM_SET_CPUID2, cpuid, "KVM_SET_CPUID2");
	call(vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.idt.base = sregs.idt.limit = 0;
	sregs.gdt.base = g->tables + 0x6000;
	sregs.gdt.limit = 5 * 8 - 1;
	sregs.cr0 = 0x80000033;
	sregs.cr3 = g->tables;
	sregs.cr4 = 0x620;
	sregs.efer = 0x500;
	call(vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	call(vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t median(uint64_t *samples, long count)
{
	if (!count)
		return 0;
	qsort(samples, count, sizeof(*samples), compare);
	return samples[count / 2];
}

int main(int argc, char **argv)
{
	long count = argc == 4 ? atol(argv[2]) : 0, warmup = 200, stores = 0, outs = 0;
	uint64_t *store = calloc(count + 1, 8), *out = calloc(count + 1, 8), *hundred = calloc(count / 100 + 1, 8);
	uint64_t start = 0, before = 0, took = 0;
	struct kvm_run *state;
	struct guest g;
	void *tables;
	int vm, vcpu, fd, stamps, run_size;

	fd = argc == 4 ? open(argv[1], O_RDONLY) : -1;
	if (fd < 0 || read(fd, &g, sizeof(g)) != sizeof(g))
		err(1, "the file of the guest");
	stamps = atoi(argv[3]);
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		err(1, "/dev/kvm");
	run_size = call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
	vm = call(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
	tables = slot(vm, 1, g.tables, TABLES_SIZE);
	make_tables(tables, g.tables);
	memcpy(slot(vm, 0, g.slot, g.size), g.code, g.length);
	vcpu = call(vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
	state = mmap(0, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (state == MAP_FAILED)
		err(1, "mmap of the vCPU");
	boot(vcpu, &g);
	memset(store, 1, 8 * count);
	memset(out, 1, 8 * count);
	for (long n = -warmup; n < count; n++) {
		if (n >= 0 && n % 100 == 0) {
			before = now();
			if (n)
				hundred[n / 100 - 1] = before - start;
			start = before;
		}
		if (stamps)
			before = now();
		if (ioctl(vcpu, KVM_RUN, 0) < 0)
			err(1, "KVM_RUN");
		if (stamps)
			took = now() - before;
		if (state->exit_reason == KVM_EXIT_MMIO && state->mmio.is_write && state->mmio.phys_addr == g.mmio) {
			if (n >= 0)
				store[stores++] = took;
		} else if (state->exit_reason == KVM_EXIT_IO && state->io.port == g.port && state->io.direction == KVM_EXIT_IO_OUT) {
			if (n >= 0)
				out[outs++] = took;
		} else {
			errx(1, "exit %u", state->exit_reason);
		}
	}
	if (!stamps)
		stores = outs = 0;
	printf("%lu %lu %.1f\n", median(store, stores), median(out, outs), median(hundred, count / 100 - 1) / 50.0);
	return 0;
}
